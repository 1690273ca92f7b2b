//! Queueing disciplines: how fast an interface sends.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::socket::u32_at;
use super::{Result, Rtnetlink, absent_is_done};

// linux/pkt_sched.h
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;
/// Where the rate is in `struct tc_tbf_qopt`.
const RATE_IN_PARAMETERS: usize = 8;
// linux/rtnetlink.h
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// The length of `struct tcmsg`.
const TC_MESSAGE: usize = 20;
/// What may go out at once: enough for one run of the timer of a slow kernel, and for the
/// largest packet before it is cut into segments.
const LEAST_BURST: u64 = 65_536;
/// How long a packet waits at most, in milliseconds.
const LONGEST_WAIT: u64 = 50;

impl Rtnetlink {
    /// What the interface sends is held to so many bytes a second, by a token bucket (TBF) at
    /// its root: what another rate or discipline there was before is replaced.
    ///
    /// # Errors
    /// What the kernel says: ENOENT if it has no TBF.
    pub fn set_rate(&mut self, interface: u32, bytes: u64) -> Result<()> {
        let burst = (bytes / 100).max(LEAST_BURST);
        let limit = burst.saturating_add(bytes.saturating_mul(LONGEST_WAIT) / 1000);
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut message = queue(interface);
        message.attributes.push(TcAttribute::Kind("tbf".to_owned()));
        let option = |kind, value: &[u8]| TcOption::Other(DefaultNla::new(kind, value.to_vec()));
        message.attributes.push(TcAttribute::Options(vec![
            option(TCA_TBF_PARMS, &parameters(narrow(bytes), narrow(limit))),
            option(TCA_TBF_RATE64, &bytes.to_ne_bytes()),
            option(TCA_TBF_BURST, &narrow(burst).to_ne_bytes()),
        ]));
        self.socket
            .request(
                RouteNetlinkMessage::NewQueueDiscipline(message),
                NLM_F_CREATE | NLM_F_REPLACE,
                || format!("rate of {bytes} bytes/s on link {interface}"),
            )
            .map(drop)
    }

    /// The rate of an interface in bytes a second, if it has one by [`Rtnetlink::set_rate`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rate(&mut self, interface: u32) -> Result<Option<u64>> {
        let mut message = queue(interface);
        message.header.parent = TcHandle::UNSPEC;
        let answers = self
            .socket
            .dump(RouteNetlinkMessage::GetQueueDiscipline(message), || {
                format!("rate of link {interface}")
            })?;
        Ok(answers
            .iter()
            .filter(|answer| u32_at(&answer.payload, 4) == Some(interface))
            .find_map(|answer| read_rate(answer.payload.get(TC_MESSAGE..)?)))
    }

    /// Ends [`Rtnetlink::set_rate`]. Where there is none, that is a success.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete_rate(&mut self, interface: u32) -> Result<()> {
        let deleted = self.socket.request(
            RouteNetlinkMessage::DelQueueDiscipline(queue(interface)),
            0,
            || format!("end of the rate on link {interface}"),
        );
        match deleted {
            // What is there is the kernel's own.
            Err(error) if error.errno() == libc::EINVAL => Ok(()),
            other => absent_is_done(other),
        }
    }
}

/// The rate of a TBF at the root among the attributes of a queueing discipline.
fn read_rate(attributes: &[u8]) -> Option<u64> {
    let find = |within, kind| {
        NlasIterator::new(within)
            .flatten()
            .find(|attribute| attribute.kind() == kind)
    };
    find(attributes, TCA_KIND).filter(|kind| kind.value() == b"tbf\0")?;
    let options = find(attributes, TCA_OPTIONS)?;
    if let Some(rate) = find(options.value(), TCA_TBF_RATE64) {
        return Some(u64::from_ne_bytes(rate.value().try_into().ok()?));
    }
    let parameters = find(options.value(), TCA_TBF_PARMS)?;
    u32_at(parameters.value(), RATE_IN_PARAMETERS).map(u64::from)
}

fn queue(interface: u32) -> TcMessage {
    let mut message = TcMessage::with_index(i32::try_from(interface).unwrap_or(0));
    message.header.parent = TcHandle::ROOT;
    message
}

/// `struct tc_tbf_qopt`: two rates, the limit, and two values that [`TCA_TBF_BURST`] replaces.
fn parameters(rate: u32, limit: u32) -> [u8; 36] {
    let mut bytes = [0; 36];
    // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
    let rate = rate.to_ne_bytes();
    let fields = [
        (1, &[TC_LINKLAYER_ETHERNET][..]),
        (RATE_IN_PARAMETERS, &rate),
    ];
    for (at, value) in fields.into_iter().chain([(24, &limit.to_ne_bytes()[..])]) {
        if let Some(room) = bytes.get_mut(at..at + value.len()) {
            room.copy_from_slice(value);
        }
    }
    bytes
}
