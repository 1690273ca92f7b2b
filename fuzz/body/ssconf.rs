//! Ganeti's ssconf files: what is taken as a name is one.

use agents::ganeti::ssconf::Ssconf;

pub fn run(data: &[u8]) {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a folder for ssconf");
    }
    FOLDER.with(|folder| {
        std::fs::write(folder.path().join("ssconf_cluster_name"), data).expect("writing ssconf");
        match Ssconf::new(folder.path()).cluster_name() {
            Ok(name) => assert!(!name.is_empty() && !name.contains(['/', '\n', '\0'])),
            Err(error) => assert!(error.to_string().len() < 1000),
        }
    });
}
