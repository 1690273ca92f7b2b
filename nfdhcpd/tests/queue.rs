//! Our client of the kernel's queue against another one, the crate `nfq`: of the same packets
//! both tell the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use etherparse::{Icmpv6Type, PacketBuilder};
use harness::tap::Tap;
use harness::wait;
use nfdhcpd::queue::{NetfilterQueue, PacketQueue as _};
use nfdhcpd::rules::{Attachment, Rules};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use scene::{Scene, dhcp_frame};

/// The queue's number.
const QUEUE: u16 = 7;
/// The mark by which bridged packets are queued where the kernel cannot do so itself.
const MARK: u32 = 0x6e66_6400;

/// What one of the two told of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    port: u32,
    source_mac: Vec<u8>,
    checksum_is_partial: bool,
    payload: Vec<u8>,
}

/// Frames of all sizes, of a guest and of one who says that he is another.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = vec![
        dhcp_frame(5, 1, 1, &[]),
        dhcp_frame(5, 3, 2, &[50, 4, 10, 66, 1, 5]),
        dhcp_frame(9, 1, 3, &[]),
    ];
    // the padding of the link is not of the packet; and a payload of an odd size
    for size in [0, 1, 300, 1400] {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([0xaa, 0, 0, 0, 0, 5], [0xff; 6])
            .ipv4([0; 4], [255; 4], 64)
            .udp(68, 67)
            .write(&mut frame, &vec![0x5a; size])
            .unwrap();
        frames.push(frame);
    }
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([0xaa, 0, 0, 0, 0, 5], [0x33, 0x33, 0, 0, 0, 2])
        .ipv6(
            [
                0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xa8, 0, 0, 0xff, 0xfe, 0, 0, 5,
            ],
            [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            255,
        )
        .icmpv6(Icmpv6Type::RouterSolicitation)
        .write(&mut frame, &[1, 1, 0xaa, 0, 0, 0, 0, 5])
        .unwrap();
    frames.push(frame);
    frames
}

fn send_all(taps: &[Tap], frames: &[Vec<u8>]) {
    for tap in taps {
        for frame in frames {
            tap.send(frame).unwrap();
        }
    }
}

/// What ours tells of `count` packets, each of which ends here.
fn ours(queue: &mut NetfilterQueue, count: usize) -> Vec<Told> {
    let mut told = Vec::new();
    while told.len() < count {
        let mut ready = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(wait::USUAL).unwrap();
        assert_eq!(
            poll(&mut ready, limit).unwrap(),
            1,
            "{} of {count}",
            told.len()
        );
        for number in 0..queue.receive().unwrap() {
            let packet = queue.packet(number).expect("a packet");
            told.push(Told {
                port: packet.port,
                source_mac: packet.source_mac.unwrap().octets().to_vec(),
                checksum_is_partial: packet.checksum_is_partial,
                payload: packet.payload.to_vec(),
            });
        }
        queue.settle(&[]).unwrap();
    }
    told
}

/// What the other tells of them.
fn theirs(queue: &mut nfq::Queue, count: usize) -> Vec<Told> {
    let mut told = Vec::new();
    wait::until_true("the packets in the other's queue", wait::USUAL, || {
        while let Ok(mut message) = queue.recv() {
            let physical = message.get_physindev();
            told.push(Told {
                port: if physical == 0 {
                    message.get_indev()
                } else {
                    physical
                },
                source_mac: message.get_hw_addr().unwrap()[..6].to_vec(),
                checksum_is_partial: !message.is_checksum_ready(),
                payload: message.get_payload().to_vec(),
            });
            message.set_verdict(nfq::Verdict::Drop);
            queue.verdict(message).unwrap();
        }
        told.len() >= count
    })
    .unwrap();
    told
}

#[test]
fn of_the_same_packets_another_client_tells_the_same() {
    let scene = Scene::new("oracle");
    let taps = [scene.bridged("tap0"), scene.routed("tap1")];
    let frames = frames();
    let count = frames.len() * taps.len();
    let result = scene.host.run(|| {
        let mut queue = NetfilterQueue::bind(QUEUE, 1000)?;
        let mut rules = Rules::install(QUEUE, MARK, None)?;
        rules.add("tap0", Attachment::Bridged);
        rules.add("tap1", Attachment::Routed);
        rules.apply()?;
        send_all(&taps, &frames);
        let ours = ours(&mut queue, count);
        drop(queue);
        let mut queue = nfq::Queue::open()?;
        queue.bind(QUEUE)?;
        queue.set_nonblocking(true);
        send_all(&taps, &frames);
        let theirs = theirs(&mut queue, count);
        rules.uninstall()?;
        Ok((ours, theirs))
    });
    let (ours, theirs) = result.unwrap();
    // what was sent came whole, from its port
    for (told, frame) in ours.iter().zip(frames.iter().cycle()) {
        assert_eq!(told.payload, frame[14..]);
        assert_eq!(told.source_mac, frame[6..12]);
    }
    let first = ours[0].port;
    assert!(ours[..frames.len()].iter().all(|told| told.port == first));
    assert!(ours[frames.len()..].iter().all(|told| told.port != first));
    assert_eq!(ours, theirs);
}

#[test]
fn every_packet_gets_a_verdict_and_those_let_go_arrive() {
    let scene = Scene::new("verdicts");
    let tap = scene.routed("tap1");
    let waiting = || {
        let table = scene
            .host
            .sh("cat /proc/thread-self/net/netfilter/nfnetlink_queue");
        let table = table.unwrap();
        let mut fields = table.split_whitespace();
        assert_eq!(fields.next(), Some("7"));
        fields.nth(1).unwrap().parse::<usize>().unwrap()
    };
    let result = scene.host.run(|| {
        let server = std::net::UdpSocket::bind("0.0.0.0:67")?;
        server.set_read_timeout(Some(wait::USUAL))?;
        let mut queue = NetfilterQueue::bind(QUEUE, 1000)?;
        let mut rules = Rules::install(QUEUE, MARK, None)?;
        rules.add("tap1", Attachment::Routed);
        rules.apply()?;
        for xid in 0..200 {
            tap.send(&dhcp_frame(5, 1, xid, &[]))?;
        }
        wait::until_true("200 waiting packets", wait::USUAL, || waiting() == 200)?;
        let mut passed = Vec::new();
        while waiting() > 0 {
            let count = queue.receive()?;
            let packets: Vec<_> = (0..count)
                .filter_map(|number| queue.packet(number))
                .collect();
            // every third goes on
            let pass: Vec<_> = packets.iter().filter(|packet| packet.id % 3 == 0).collect();
            passed.extend(
                pass.iter()
                    .map(|packet| packet.payload[28 + 4..28 + 8].to_vec()),
            );
            let pass: Vec<u32> = pass.iter().map(|packet| packet.id).collect();
            queue.settle(&pass)?;
            thread::sleep(Duration::from_millis(1));
        }
        let mut arrived = Vec::new();
        let mut buffer = [0; 2048];
        for _ in &passed {
            server.recv(&mut buffer)?;
            arrived.push(buffer[4..8].to_vec());
        }
        rules.uninstall()?;
        Ok((passed, arrived))
    });
    let (passed, arrived) = result.unwrap();
    assert!(passed.len() >= 60, "{}", passed.len());
    assert_eq!(passed, arrived);
}
