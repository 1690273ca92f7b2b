//! Giving up what a daemon that hostile guests talk to need not have.
//!
//! Everything that needs privileges is opened before. Then, in this order and before any thread is
//! started, since most of it is of the thread and not of the process: another user, two
//! capabilities, no new privileges, the folders that may be seen (landlock), the system calls that
//! may be made (seccomp). What an old kernel has not is left out, and said so.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
};
use nix::unistd::{Uid, User};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::config::Config;

/// What the data path needs: the queue and the rules; the packet socket.
const KEPT: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// Becomes `user`, if one is given and we are root, and keeps two capabilities.
///
/// # Errors
/// There is no such user, or the kernel refuses.
pub fn drop_capabilities(user: Option<&str>) -> anyhow::Result<()> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    // What is not in the bounding set cannot come back, not even by a set-user-id program.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all() {
            // The crate may know more than the kernel.
            if !kept.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
            {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    if let Some(name) = user {
        become_user(name)?;
    }
    // Effective before permitted: it cannot hold more.
    caps::set(None, CapSet::Effective, &kept)
        .context("CAP_NET_ADMIN and CAP_NET_RAW are needed")?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    // Those that the service manager gave us for our start.
    let _ = caps::clear(None, CapSet::Ambient);
    nix::sys::prctl::set_no_new_privs().context("no new privileges")?;
    Ok(())
}

fn become_user(name: &str) -> anyhow::Result<()> {
    let user = User::from_name(name)?.with_context(|| format!("there is no user {name:?}"))?;
    if user.uid == Uid::effective() {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        bail!("only root can become the user {name:?}");
    }
    // The permitted set survives the change of user; the effective one is set again after it.
    nix::sys::prctl::set_keepcaps(true)?;
    nix::unistd::setgroups(&[]).context("supplementary groups")?;
    nix::unistd::setgid(user.gid).with_context(|| format!("group of {name:?}"))?;
    nix::unistd::setuid(user.uid).with_context(|| format!("user {name:?}"))?;
    nix::sys::prctl::set_keepcaps(false)?;
    Ok(())
}

/// Hides all files but the bindings, the configuration and the folder of the control socket, and
/// all TCP but the port of the metrics.
///
/// # Errors
/// The kernel has landlock and refuses.
pub fn hide_files(config: &Config, configuration: Option<&Path>) -> anyhow::Result<()> {
    let abi = ABI::V5;
    let read = AccessFs::from_read(abi);
    let folders = [
        Some(config.bindings.as_path()),
        configuration.and_then(Path::parent),
    ];
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .create()?
        .add_rules(path_beneath_rules(
            folders.into_iter().flatten(),
            read & !AccessFs::Execute,
        ))?
        .add_rules(path_beneath_rules(
            config.control.parent(),
            AccessFs::RemoveFile,
        ))?;
    if let Some(address) = config.metrics {
        rules = rules.add_rule(NetPort::new(address.port(), AccessNet::BindTcp))?;
    }
    let status = rules.restrict_self()?;
    if status.ruleset != RulesetStatus::FullyEnforced {
        tracing::warn!(status = ?status.ruleset, "this kernel cannot hide all files (landlock)");
    }
    Ok(())
}

/// Refuses (EPERM) all system calls that the daemon does not make, on all its threads.
///
/// # Errors
/// The kernel has seccomp and refuses.
pub fn restrict_system_calls() -> anyhow::Result<()> {
    let Ok(architecture) = TargetArch::try_from(std::env::consts::ARCH) else {
        tracing::warn!("system calls are not restricted on this kind of processor");
        return Ok(());
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    // To notify the service manager; no other socket is made after the start.
    let unix = u64::try_from(libc::AF_UNIX)?;
    let family = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, unix)?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![family])?]);
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM)?);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter_all_threads(&program).context("seccomp")?;
    Ok(())
}

/// What the daemon, the standard library under it and its threads call.
const ALLOWED: &[i64] = &[
    // packets, netlink, control socket, metrics
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    // files
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // the journal takes long records in such a file
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    // memory, threads, time, the end
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_clone3,
    libc::SYS_clone,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_prctl,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
