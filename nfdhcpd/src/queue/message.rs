//! The messages of the kernel's queue (linux/netfilter/nfnetlink_queue.h), as bytes.

use agents::addr::MacAddr;

const NFNL_SUBSYS_QUEUE: u16 = 3;
const NFQNL_MSG_PACKET: u16 = 0;
const NFQNL_MSG_VERDICT: u16 = 1;
const NFQNL_MSG_CONFIG: u16 = 2;
const NFQNL_MSG_VERDICT_BATCH: u16 = 3;

const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_IFINDEX_INDEV: u16 = 5;
const NFQA_IFINDEX_PHYSINDEV: u16 = 7;
const NFQA_HWADDR: u16 = 9;
const NFQA_PAYLOAD: u16 = 10;
const NFQA_SKB_INFO: u16 = 14;
/// The checksum is left to the hardware.
const NFQA_SKB_CSUMNOTREADY: u32 = 1;

const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;
const NFQA_CFG_F_GSO: u32 = 4;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_PACKET: u8 = 2;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
/// The message's header and the nfnetlink header behind it.
const HEADERS: usize = 16 + 4;

/// What to do with a packet (linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// It ends here.
    Drop = 0,
    /// It goes on.
    Accept = 1,
}

/// A packet that waits for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedPacket<'a> {
    /// The kernel's number of it, which counts up within a queue.
    pub id: u32,
    /// The interface that it came in by: for a bridged one the port, not the bridge.
    pub port: u32,
    /// The MAC address that it came from.
    pub source_mac: Option<MacAddr>,
    /// Whether its checksum is left to the hardware, and so not yet in the packet.
    pub checksum_is_partial: bool,
    /// The packet from its IP header on, cut to the copy range.
    pub payload: &'a [u8],
}

/// A message of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A packet.
    Packet(QueuedPacket<'a>),
    /// The answer to one of ours: 0 or an error number.
    Result(i32),
    /// None of these, or cut off.
    Unknown,
}

/// Reads one message. Any bytes are taken.
pub fn parse(bytes: &[u8]) -> Message<'_> {
    let Some(&[l0, l1, l2, l3, t0, t1]) = bytes.first_chunk() else {
        return Message::Unknown;
    };
    let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
    let kind = u16::from_ne_bytes([t0, t1]);
    if kind == NLMSG_ERROR {
        return match bytes.get(16..20).map(<[u8; 4]>::try_from) {
            Some(Ok(errno)) => Message::Result(i32::from_ne_bytes(errno).saturating_neg()),
            _ => Message::Unknown,
        };
    }
    if kind != NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET {
        return Message::Unknown;
    }
    match bytes
        .get(HEADERS..length.min(bytes.len()))
        .and_then(parse_packet)
    {
        Some(packet) => Message::Packet(packet),
        None => Message::Unknown,
    }
}

/// The id of a packet's message, without looking at the rest. The kernel puts it first.
pub fn packet_id(bytes: &[u8]) -> Option<u32> {
    const PACKET: u16 = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET;
    let kind = bytes.get(4..6)?;
    match bytes.get(HEADERS..HEADERS + 8)? {
        [_, _, t0, t1, id @ ..]
            if kind == PACKET.to_ne_bytes() && [*t0, *t1] == NFQA_PACKET_HDR.to_ne_bytes() =>
        {
            number(id)
        }
        _ => match parse(bytes) {
            Message::Packet(packet) => Some(packet.id),
            _ => None,
        },
    }
}

fn parse_packet(mut attributes: &[u8]) -> Option<QueuedPacket<'_>> {
    let mut id = None;
    let (mut port, mut physical) = (0, 0);
    let mut packet = QueuedPacket {
        id: 0,
        port: 0,
        source_mac: None,
        checksum_is_partial: false,
        payload: &[],
    };
    while let [l0, l1, t0, t1, rest @ ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*l0, *l1])).checked_sub(4)?;
        // The two highest bits are flags.
        let kind = u16::from_ne_bytes([*t0, *t1]) & 0x3fff;
        let value = rest.get(..length)?;
        match kind {
            NFQA_PACKET_HDR => id = number(value),
            NFQA_IFINDEX_INDEV => port = number(value)?,
            NFQA_IFINDEX_PHYSINDEV => physical = number(value)?,
            NFQA_HWADDR => {
                if let [0, 6, _, _, octets @ ..] = value {
                    packet.source_mac = octets.get(..6).and_then(|octets| octets.try_into().ok());
                }
            }
            NFQA_SKB_INFO => {
                packet.checksum_is_partial = number(value)? & NFQA_SKB_CSUMNOTREADY != 0
            }
            NFQA_PAYLOAD => packet.payload = value,
            _ => {}
        }
        attributes = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    packet.id = id?;
    // Of a bridged packet the kernel tells the port as physical, and the bridge as the other.
    packet.port = if physical != 0 { physical } else { port };
    Some(packet)
}

/// The first four bytes, in the order of the network.
fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Appends the request to bind the queue `queue`, with the whole of each packet up to
/// `copy_range` bytes, at most `length` packets waiting. The kernel acknowledges it.
///
/// All settings are in one message: a later one could come after packets that are then lost.
pub fn bind(queue: u16, copy_range: u32, length: u32, out: &mut Vec<u8>) {
    message(NFQNL_MSG_CONFIG, NLM_F_ACK, queue, out, |out| {
        // The protocol family counts for nothing since Linux 3.8.
        attribute(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0], out);
        let [a, b, c, d] = copy_range.to_be_bytes();
        attribute(NFQA_CFG_PARAMS, &[a, b, c, d, NFQNL_COPY_PACKET], out);
        attribute(NFQA_CFG_QUEUE_MAXLEN, &length.to_be_bytes(), out);
        // Without this the kernel computes checksums that we do not look at.
        attribute(NFQA_CFG_FLAGS, &NFQA_CFG_F_GSO.to_be_bytes(), out);
        attribute(NFQA_CFG_MASK, &NFQA_CFG_F_GSO.to_be_bytes(), out);
    });
}

/// Appends the verdict on one packet.
pub fn verdict(queue: u16, id: u32, verdict: Verdict, out: &mut Vec<u8>) {
    write_verdict(NFQNL_MSG_VERDICT, queue, id, verdict, out);
}

/// Appends the verdict on all packets of the queue that wait, up to that with this id.
pub fn verdict_up_to(queue: u16, id: u32, verdict: Verdict, out: &mut Vec<u8>) {
    write_verdict(NFQNL_MSG_VERDICT_BATCH, queue, id, verdict, out);
}

fn write_verdict(kind: u16, queue: u16, id: u32, verdict: Verdict, out: &mut Vec<u8>) {
    message(kind, 0, queue, out, |out| {
        let [a, b, c, d] = (verdict as u32).to_be_bytes();
        let [e, f, g, h] = id.to_be_bytes();
        attribute(NFQA_VERDICT_HDR, &[a, b, c, d, e, f, g, h], out);
    });
}

fn message(kind: u16, flags: u16, queue: u16, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(NFNL_SUBSYS_QUEUE << 8 | kind).to_ne_bytes());
    out.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and sender: one answer at most is awaited, and the kernel knows us.
    out.extend_from_slice(&[0; 8]);
    // Family, version, queue.
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&queue.to_be_bytes());
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
}

fn attribute(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel sends it: header, then the attributes in its order.
    fn packet(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        message(NFQNL_MSG_PACKET, 0, 42, &mut bytes, |out| {
            for (kind, value) in attributes {
                attribute(*kind, value, out);
            }
        });
        bytes
    }

    #[test]
    fn a_bridged_packet_is_read_with_its_port() {
        let bytes = packet(&[
            (NFQA_PACKET_HDR, &[0, 0, 0, 9, 8, 0, 0]),
            (NFQA_IFINDEX_INDEV, &[0, 0, 0, 3]),
            (NFQA_IFINDEX_PHYSINDEV, &[0, 0, 0, 7]),
            (NFQA_HWADDR, &[0, 6, 0, 0, 0xaa, 0, 0, 0, 0, 1, 0, 0]),
            (NFQA_SKB_INFO, &[0, 0, 0, 1]),
            (NFQA_PAYLOAD, b"abcde"),
        ]);
        let Message::Packet(packet) = parse(&bytes) else {
            panic!()
        };
        assert_eq!(packet.id, 9);
        assert_eq!(packet.port, 7);
        assert_eq!(packet.source_mac, Some(MacAddr::new([0xaa, 0, 0, 0, 0, 1])));
        assert!(packet.checksum_is_partial);
        assert_eq!(packet.payload, b"abcde");
        assert_eq!(packet_id(&bytes), Some(9));
    }

    #[test]
    fn the_id_is_found_wherever_it_is() {
        let bytes = packet(&[
            (NFQA_PAYLOAD, b"abcde"),
            (NFQA_PACKET_HDR, &[0, 0, 0, 9, 8, 0, 0]),
        ]);
        assert_eq!(packet_id(&bytes), Some(9));
        // The last byte is padding.
        for cut in 0..bytes.len() - 1 {
            assert_eq!(packet_id(&bytes[..cut]), None, "{cut}");
        }
        let mut verdicts = Vec::new();
        verdict(42, 7, Verdict::Drop, &mut verdicts);
        assert_eq!(packet_id(&verdicts), None);
    }

    #[test]
    fn a_routed_packet_has_its_interface_alone() {
        let bytes = packet(&[
            (NFQA_PACKET_HDR, &[0, 0, 0, 9, 8, 0, 0]),
            (NFQA_IFINDEX_INDEV, &[0, 0, 0, 3]),
        ]);
        let Message::Packet(packet) = parse(&bytes) else {
            panic!()
        };
        assert_eq!(
            (packet.port, packet.source_mac, packet.payload.len()),
            (3, None, 0)
        );
    }

    #[test]
    fn what_is_cut_off_is_unknown_and_never_fatal() {
        let bytes = packet(&[
            (NFQA_PACKET_HDR, &[0, 0, 0, 9, 8, 0, 0]),
            (NFQA_PAYLOAD, b"abcdefgh"),
        ]);
        for cut in 0..bytes.len() {
            let _ = parse(&bytes[..cut]);
        }
        assert_eq!(parse(&bytes[..24]), Message::Unknown);
        assert_eq!(
            parse(&packet(&[(NFQA_PAYLOAD, b"no id")])),
            Message::Unknown
        );
        // An attribute that is shorter than its own header.
        let mut short = bytes;
        short[20..22].copy_from_slice(&3_u16.to_ne_bytes());
        assert_eq!(parse(&short), Message::Unknown);
    }

    #[test]
    fn the_answer_to_a_request_is_its_error_number() {
        let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(parse(&bytes), Message::Result(1));
    }

    #[test]
    fn a_verdict_has_the_form_of_the_kernels_header_file() {
        let mut bytes = Vec::new();
        verdict_up_to(42, 7, Verdict::Drop, &mut bytes);
        assert_eq!(bytes.len(), 32);
        assert_eq!(bytes[4..6], (3_u16 << 8 | 3).to_ne_bytes());
        assert_eq!(bytes[16..20], [0, 0, 0, 42]);
        assert_eq!(bytes[24..32], [0, 0, 0, 0, 0, 0, 0, 7]);
    }
}
