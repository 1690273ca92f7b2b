//! A TAP interface as QEMU has one, with the guest's side in our hands: frames are read from
//! and written to a file descriptor, or pumped to an interface in a client's namespace, where
//! real programs (udhcpc, dhclient, the kernel's SLAAC) use it.

#![allow(unsafe_code)] // the TUNSETIFF ioctl has no safe form

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::Netns;

mod ioctl {
    #![allow(missing_docs)] // the macro's function cannot carry any
    nix::ioctl_write_int!(tun_set_iff, b'T', 202);
}

/// `struct ifreq` as TUNSETIFF wants it (linux/if.h).
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    padding: [u8; 22],
}

/// linux/if_tun.h: a layer 2 interface.
const IFF_TAP: u16 = 0x0002;
/// linux/if_tun.h: frames without the `struct tun_pi` in front.
const IFF_NO_PI: u16 = 0x1000;

/// The longest frame read: a 64 KiB MTU and the Ethernet header.
const FRAME_LIMIT: usize = 65_536 + 18;

/// A TAP interface; gone when this is dropped, as one of QEMU's is.
#[derive(Debug)]
pub struct Tap {
    name: String,
    file: File,
}

impl Tap {
    /// Makes the interface `name` in `namespace`. It is down and has a random MAC, as when
    /// Ganeti calls the NIC script.
    ///
    /// # Errors
    /// The name is taken or too long, or we are not root.
    pub fn new(namespace: &Netns, name: &str) -> Result<Self> {
        if name.len() >= 16 {
            bail!("interface name {name:?} is longer than 15 bytes");
        }
        let mut request = InterfaceRequest {
            name: [0; 16],
            flags: IFF_TAP | IFF_NO_PI,
            padding: [0; 22],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        let file = namespace.run(|| {
            let file = File::options()
                .read(true)
                .write(true)
                .open("/dev/net/tun")
                .context("/dev/net/tun")?;
            // SAFETY: the request is a whole struct ifreq and outlives the call.
            unsafe { ioctl::tun_set_iff(file.as_raw_fd(), (&raw const request) as u64) }
                .with_context(|| format!("making the TAP {name}"))?;
            Ok(file)
        })?;
        Ok(Self {
            name: name.to_owned(),
            file,
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a frame as the guest would.
    ///
    /// # Errors
    /// The interface is down (EIO) or gone.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = (&self.file)
            .write(frame)
            .with_context(|| format!("frame into {}", self.name))?;
        if sent != frame.len() {
            bail!(
                "only {sent} of {} bytes went into {}",
                frame.len(),
                self.name
            );
        }
        Ok(())
    }

    /// The next frame that the host sends to the guest, if one comes in time.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn receive(&self, limit: Duration) -> Result<Option<Vec<u8>>> {
        let wait = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, wait)? == 0 {
            return Ok(None);
        }
        let mut frame = vec![0; FRAME_LIMIT];
        let length = (&self.file)
            .read(&mut frame)
            .with_context(|| format!("frame from {}", self.name))?;
        frame.truncate(length);
        Ok(Some(frame))
    }

    /// The next frame for which `wanted` holds; others are dropped.
    ///
    /// # Errors
    /// As for [`Tap::receive`].
    pub fn receive_matching(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let start = Instant::now();
        while let Some(left) = limit.checked_sub(start.elapsed()) {
            match self.receive(left)? {
                Some(frame) if wanted(&frame) => return Ok(Some(frame)),
                Some(_) => {}
                None => break,
            }
        }
        Ok(None)
    }

    /// Connects the guest's side to a new interface `eth0` with the MAC `mac` in a new
    /// namespace, as if it were the guest's own NIC.
    ///
    /// # Errors
    /// The namespace or its interface cannot be made.
    pub fn into_client(self, mac: &str) -> Result<Client> {
        let namespace = Netns::new()?;
        let inner = Self::new(&namespace, "eth0")?;
        namespace.ip(&format!("link set eth0 address {mac}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let pump = {
            let stop = Arc::clone(&stop);
            thread::Builder::new()
                .name(format!("pump {}", self.name))
                .spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        pump_once(&self.file, &inner.file);
                    }
                })?
        };
        Ok(Client {
            namespace,
            stop,
            pump: Some(pump),
        })
    }
}

impl AsFd for Tap {
    /// What [`Tap::send`] writes to and [`Tap::receive`] reads from.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Passes on what is there, both ways; frames that the other side does not take (it is down)
/// are lost, as on a wire.
fn pump_once(one: &File, other: &File) {
    let mut ready = [
        PollFd::new(one.as_fd(), PollFlags::POLLIN),
        PollFd::new(other.as_fd(), PollFlags::POLLIN),
    ];
    let Ok(1..) = poll(&mut ready, PollTimeout::from(100_u8)) else {
        return;
    };
    let readable = ready.map(|fd| {
        fd.revents()
            .is_some_and(|events| events.contains(PollFlags::POLLIN))
    });
    let mut frame = vec![0; FRAME_LIMIT];
    for (from, to, there) in [(one, other, readable[0]), (other, one, readable[1])] {
        if there {
            match (&mut &*from).read(&mut frame) {
                Ok(length) => drop((&mut &*to).write(&frame[..length])),
                // the interface is down: do not spin
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// The guest's side of a TAP, as a namespace with one interface `eth0`.
#[derive(Debug)]
pub struct Client {
    /// Where the client programs run.
    pub namespace: Netns,
    stop: Arc<AtomicBool>,
    pump: Option<JoinHandle<()>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_from_the_guest_arrives_and_an_answer_comes_back() {
        let host = Netns::new().unwrap();
        let tap = Tap::new(&host, "tap0").unwrap();
        host.ip("addr add 192.0.2.1/24 dev tap0").unwrap();
        host.ip("link set tap0 up").unwrap();
        // who-has 192.0.2.1 tell 192.0.2.2
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend([
            2, 0, 0, 0, 0, 2, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
        ]);
        tap.send(&frame).unwrap();
        let is_reply =
            |frame: &[u8]| frame.get(12..14) == Some(&[8, 6]) && frame.get(21) == Some(&2);
        let reply = tap
            .receive_matching(Duration::from_secs(10), is_reply)
            .unwrap();
        assert_eq!(&reply.expect("an ARP reply")[28..32], &[192, 0, 2, 1]);
    }

    #[test]
    fn a_client_namespace_is_reached_through_the_tap() {
        let host = Netns::new().unwrap();
        let tap = Tap::new(&host, "tap0").unwrap();
        host.ip("addr add 192.0.2.1/24 dev tap0").unwrap();
        host.ip("link set tap0 up").unwrap();
        let client = tap.into_client("aa:00:00:00:00:01").unwrap();
        client
            .namespace
            .ip("addr add 192.0.2.2/24 dev eth0")
            .unwrap();
        client.namespace.ip("link set eth0 up").unwrap();
        host.sh("ping -c 1 -W 10 192.0.2.2").unwrap();
    }
}
