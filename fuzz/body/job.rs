//! Ganeti's job files.

use agents::ganeti::job::Job;

pub fn run(data: &[u8]) {
    let Ok(job) = Job::parse(7, data) else {
        return;
    };
    let _ = job.is_final();
    for op in &job.ops {
        let _ = (job.status_time(op), op.result(), op.result_length());
        if let Ok(input) = op.input() {
            let _ = (
                input.opcode(),
                input.text("instance_name"),
                input.texts("tags"),
            );
        }
    }
}
