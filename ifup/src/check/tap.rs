//! A TAP, as QEMU opens it.

#![allow(unsafe_code)] // TUNSETIFF

use std::fs::File;
use std::io;

use agents::netlink::Rtnetlink;

use crate::error::{Error, Result};

/// `struct ifreq` (linux/if.h), as far as it is of use here.
#[repr(C)]
#[derive(Debug)]
pub struct Request {
    name: [u8; 16],
    flags: i16,
    padding: [u8; 22],
}

mod ioctl {
    // linux/if_tun.h: TUNSETIFF is _IOW('T', 202, int), but takes a struct ifreq.
    nix::ioctl_readwrite_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        super::Request
    );
}

/// linux/if_tun.h: a layer 2 interface.
const IFF_TAP: i16 = 0x0002;
/// linux/if_tun.h: frames without the `struct tun_pi` in front.
const IFF_NO_PI: i16 = 0x1000;

/// Makes the TAP of this name in the thread's network namespace; it goes when the file is
/// closed.
///
/// # Errors
/// The name is taken or too long, or what the kernel says.
fn open(name: &str) -> io::Result<File> {
    let mut request = Request {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI,
        padding: [0; 22],
    };
    match request.name.get_mut(..name.len()) {
        Some(place) if name.len() < 16 => place.copy_from_slice(name.as_bytes()),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: the descriptor is open, and the request is a whole struct ifreq that outlives
    // the call, which writes no more than that back.
    unsafe { ioctl::tun_set_iff(raw, &raw mut request) }?;
    Ok(file)
}

/// A TAP of this name in the thread's network namespace, and its index.
///
/// # Errors
/// As for [`open`].
pub fn plug(name: &str, rtnetlink: &mut Rtnetlink) -> Result<(File, u32)> {
    let tap = open(name).map_err(|error| Error::file("/dev/net/tun", error))?;
    let link = rtnetlink.link_by_name(name)?;
    let link = link.ok_or_else(|| Error::host("INTERFACE", name, "gone"))?;
    Ok((tap, link.index))
}
