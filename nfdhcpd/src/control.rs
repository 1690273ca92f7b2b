//! What `nfdhcpd clients` asks the daemon, over a socket that only root can use.
//!
//! Whoever connects is told of all guests as JSON, and the connection ends.

use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use agents::addr::MacAddr;
use serde::{Deserialize, Serialize};

use crate::guest::{Guest, addresses};

/// How long one who asks may take to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// The socket that answers.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// One guest, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The interface.
    pub interface: String,
    /// The kernel's number of it.
    pub index: u32,
    /// `bridged` or `routed`.
    pub attachment: String,
    /// The instance.
    pub instance: String,
    /// Its MAC address.
    pub mac: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Packets that were answered.
    pub answered: u64,
    /// Packets that ended here.
    pub dropped: u64,
    /// What happened last: seconds since 1970, and in words.
    pub last: Option<(u64, String)>,
}

impl Report {
    /// Tells of a guest.
    pub fn of(guest: &Guest) -> Self {
        let client = &guest.client;
        let mac: MacAddr = client.binding.mac;
        Self {
            interface: client.interface.clone(),
            index: client.port.index,
            attachment: if client.port.bridged {
                "bridged"
            } else {
                "routed"
            }
            .to_owned(),
            instance: client.binding.hostname.clone(),
            mac: mac.to_string(),
            addresses: addresses(client),
            answered: guest.answered,
            dropped: guest.dropped,
            last: guest.last.map(|last| {
                let time = last.time.duration_since(UNIX_EPOCH).unwrap_or_default();
                let result = match last.result {
                    Ok(answer) => answer.name().to_owned(),
                    Err(reason) => format!("dropped: {reason}"),
                };
                (time.as_secs(), format!("{} -> {result}", last.kind.name()))
            }),
        }
    }
}

impl Control {
    /// Makes the socket, in a folder of ours that is made if need be.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // One that an earlier run left; another daemon that still runs would hold our queue too.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers those who wait. Each is written to on a thread of its own, so that one that does
    /// not read holds up nobody.
    pub fn answer(&self, reports: impl Fn() -> Vec<Report>) {
        while let Ok((stream, _)) = self.listener.accept() {
            let text = serde_json::to_vec(&reports()).unwrap_or_default();
            let work = move || {
                if let Err(error) = write(stream, &text) {
                    tracing::debug!(%error, "control socket");
                }
            };
            if let Err(error) = thread::Builder::new()
                .name("control".to_owned())
                .spawn(work)
            {
                tracing::warn!(%error, "control socket");
            }
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn write(mut stream: UnixStream, text: &[u8]) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(text)
}

/// Asks the daemon whose socket is at `path`.
///
/// # Errors
/// No daemon answers there, or not as one of ours.
pub fn ask(path: &Path) -> io::Result<Vec<Report>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// The reports as a table for people.
pub fn table(reports: &[Report], now: u64) -> String {
    const HEAD: [&str; 8] = [
        "INTERFACE",
        "INSTANCE",
        "MAC",
        "ADDRESSES",
        "",
        "ANSWERED",
        "DROPPED",
        "LAST",
    ];
    let rows: Vec<[String; 8]> = reports
        .iter()
        .map(|report| {
            let addresses: Vec<String> = report.addresses.iter().map(ToString::to_string).collect();
            let last = report.last.as_ref().map_or_else(
                || "-".to_owned(),
                |(time, text)| format!("{text}, {} s ago", now.saturating_sub(*time)),
            );
            [
                report.interface.clone(),
                report.instance.clone(),
                report.mac.clone(),
                addresses.join(" "),
                report.attachment.clone(),
                report.answered.to_string(),
                report.dropped.to_string(),
                last,
            ]
        })
        .collect();
    let head = HEAD.map(str::to_owned);
    let mut widths = [0; 8];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut out = String::new();
    for row in [&head].into_iter().chain(&rows) {
        let line: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            interface: "tap0".to_owned(),
            index: 7,
            attachment: "bridged".to_owned(),
            instance: "snf-1".to_owned(),
            mac: "aa:00:00:00:00:01".to_owned(),
            addresses: vec!["10.0.0.5".parse().unwrap()],
            answered: 2,
            dropped: 0,
            last: Some((1000, "DHCPREQUEST -> DHCPACK".to_owned())),
        }
    }

    #[test]
    fn who_asks_is_told_and_the_socket_is_roots_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run/control");
        let control = Control::open(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let asker = thread::spawn({
            let path = path.clone();
            move || ask(&path).unwrap()
        });
        while !asker.is_finished() {
            control.answer(|| vec![report()]);
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(asker.join().unwrap(), [report()]);
        drop(control);
        assert!(!path.exists());
        assert!(ask(&path).is_err());
    }

    #[test]
    fn one_that_an_earlier_run_left_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("control");
        std::mem::forget(Control::open(&path).unwrap());
        Control::open(&path).unwrap();
    }

    #[test]
    fn the_table_has_its_columns_under_each_other() {
        let text = table(&[report()], 1010);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("MAC"), lines[1].find("aa:00"));
        assert!(
            lines[1].ends_with("DHCPREQUEST -> DHCPACK, 10 s ago"),
            "{text}"
        );
    }
}
