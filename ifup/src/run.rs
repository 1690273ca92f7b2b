//! Up and down, whole: locked, in time, undone if it fails.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use agents::netlink::Rtnetlink;

use crate::announce;
use crate::apply::Host;
use crate::closing;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::lock::Lock;
use crate::plan::Plan;
use crate::record::{self, Record};
use crate::request::{Connection, Request};
use crate::shared;
use crate::step::Step;
use crate::sysctl;

/// What would be done for the NIC that these variables describe. Changes nothing.
///
/// # Errors
/// The variables or the host are not as they should be.
pub fn dry_run(variables: &BTreeMap<String, String>, config: &Config) -> Result<Plan> {
    let request = Request::new(variables, config)?;
    let facts = Facts::find(&request, &mut Rtnetlink::open()?)?;
    Ok(Plan::make(&request, &facts, config))
}

/// Connects the NIC that these variables describe. If it is connected already, differences
/// are put right. If it fails, what it did is undone.
///
/// # Errors
/// The variables or the host are not as they should be, the kernel refuses, or time is over.
pub fn up(variables: &BTreeMap<String, String>, config: &Config) -> Result<()> {
    let deadline = Deadline::start(config.deadline_seconds);
    let request = Request::new(variables, config)?;
    record::make_folder(&config.state)?;
    let lock = Lock::take(&config.state, &deadline)?;
    let mut connected = connect(&request, variables, Guest::AsFound, &deadline, config)?;
    // The others need not wait until the kernel has closed what is open here.
    drop(lock);
    if announce::is_due(&request) {
        let frames = announce::frames(&request, &connected.facts);
        let socket = announce::send(&frames, &mut connected.rtnetlink);
        if socket.is_some() {
            closing::leave_to_a_child();
        }
    }
    Ok(())
}

/// The result for a NIC whose last call was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// It is connected, as that call was to do.
    Connected,
    /// It is disconnected, as that call was to do.
    Disconnected,
    /// It could not be connected, for this reason: it is disconnected.
    GivenUp(String),
    /// An older program had connected it; it is connected as this one does it.
    Renewed,
}

/// Finishes what a call for an interface that is there left half done because it was killed, and
/// does anew what an older program did otherwise; none if there is no such thing.
///
/// # Errors
/// Not all could be taken back of what can neither be finished; or what is to be done anew is
/// refused, and the NIC is as it was.
pub fn finish(interface: &str, config: &Config) -> Result<Option<Finished>> {
    let deadline = Deadline::start(config.deadline_seconds);
    let _lock = Lock::take(&config.state, &deadline)?;
    // A call that was only slow is over now.
    let Some(record) = Record::load(&config.state, interface)? else {
        return Ok(None);
    };
    if record.leaving {
        disconnect(&record, config)?;
        return Ok(Some(Finished::Disconnected));
    }
    let variables = &record.environment;
    if !record.unfinished {
        let index = Rtnetlink::open()?
            .link_by_name(interface)?
            .map(|link| link.index);
        if !record.is_outdated() || index != Some(record.index) {
            return Ok(None);
        }
        // Its guest runs: if this fails, the NIC stays as it was.
        let request = Request::new(variables, config)?;
        connect(&request, variables, Guest::AsFound, &deadline, config)?;
        return Ok(Some(Finished::Renewed));
    }
    let connected = Request::new(variables, config)
        .and_then(|request| connect(&request, variables, Guest::AsFound, &deadline, config));
    match connected {
        Ok(_) => Ok(Some(Finished::Connected)),
        Err(error) => {
            if let Some(record) = Record::load(&config.state, interface)? {
                disconnect(&record, config)?;
            }
            Ok(Some(Finished::GivenUp(error.to_string())))
        }
    }
}

/// Fixes the place of a guest that was awaited and has been heard here; whether it was awaited.
///
/// # Errors
/// As for [`up`].
pub fn settle(interface: &str, index: u32, config: &Config) -> Result<bool> {
    again(interface, index, Guest::Here, config)
}

/// Awaits the guest of an interface, which has been heard elsewhere, until it is heard here
/// again; whether its place was fixed.
///
/// # Errors
/// As for [`up`].
pub fn release(interface: &str, index: u32, config: &Config) -> Result<bool> {
    again(interface, index, Guest::Elsewhere, config)
}

fn again(interface: &str, index: u32, guest: Guest, config: &Config) -> Result<bool> {
    let deadline = Deadline::start(config.deadline_seconds);
    let _lock = Lock::take(&config.state, &deadline)?;
    let Some(record) = Record::load(&config.state, interface)? else {
        return Ok(false);
    };
    let wanted = match guest {
        Guest::AsFound => true,
        Guest::Here => record.awaits_guest(),
        Guest::Elsewhere => record.place().is_some(),
    };
    if !wanted || record.index != index || record.unfinished || record.leaving {
        return Ok(false);
    }
    let request = Request::new(&record.environment, config)?;
    connect(&request, &record.environment, guest, &deadline, config)?;
    Ok(true)
}

/// The assumed place of a guest, when its entry in a bridge's forwarding table is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    /// As the forwarding table has it.
    AsFound,
    /// Behind this TAP.
    Here,
    /// Not behind this TAP any more.
    Elsewhere,
}

/// A NIC that is connected.
struct Connected {
    facts: Facts,
    rtnetlink: Rtnetlink,
}

/// Connects a NIC; the caller has the lock.
fn connect(
    request: &Request,
    variables: &BTreeMap<String, String>,
    guest: Guest,
    deadline: &Deadline,
    config: &Config,
) -> Result<Connected> {
    if request.nfdhcpd {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&config.bindings)
            .map_err(|error| Error::file(&config.bindings, error))?;
    }
    let mut rtnetlink = Rtnetlink::open()?;
    let mut facts = Facts::find(request, &mut rtnetlink)?;
    facts.guest_elsewhere = match guest {
        Guest::AsFound => {
            facts.guest_elsewhere && comes_from(request, &facts, &mut rtnetlink, config)?
        }
        Guest::Here => false,
        Guest::Elsewhere => true,
    };
    let mut plan = Plan::make(request, &facts, config);

    let interface = request.interface();
    let old = match Record::load(&config.state, interface) {
        Ok(old) => old,
        Err(error) => {
            tracing::warn!(interface, %error, "an old record is of no use");
            None
        }
    };
    // Of another interface of the same name, only what outlives an interface is left.
    let (same, stale) = match old {
        Some(old) if old.index == facts.index => (Some(old), None),
        other => (None, other),
    };
    remember(&mut plan, same.as_ref())?;
    remember_bridge(
        &mut plan,
        same.as_ref().or(stale.as_ref()),
        interface,
        config,
    );

    let mut record = Record::new(
        interface,
        facts.index,
        &request.nic.instance,
        variables.clone(),
    );
    record.steps.clone_from(&plan.steps);
    record.shared.clone_from(&plan.shared);
    let before = same.as_ref().or(stale.as_ref());
    // Whoever finds this record instead of the final one knows all that may have been done.
    let mut intent = record.clone();
    intent.unfinished = true;
    if let Some(before) = before {
        add_missing(&mut intent.steps, &before.steps);
        add_missing(&mut intent.shared, &before.shared);
    }
    intent.save(&config.state)?;

    let mut call = Call {
        host: Host::new(rtnetlink, interface, Some(facts.index), config),
        config,
        interface,
    };
    if let Some(before) = before {
        call.host.guarded_by(&before.steps);
    }
    if !facts.up {
        call.host.begins_down();
    }
    if let (Connection::Bridged { bridge, .. }, Some(index)) = (&request.connection, facts.bridge) {
        call.host.knows(bridge, index);
    }
    let mut done = Vec::new();
    match call.carry_out(&plan, deadline, &mut done) {
        Ok(()) => {
            if let Some(same) = &same {
                call.take_back_surplus(same, &plan)?;
            }
            if let Some(stale) = &stale {
                call.host.forget_interface();
                call.take_back_surplus(stale, &plan)?;
            }
            if intent.steps == record.steps && intent.shared == record.shared {
                record.finish(&config.state)?;
            } else {
                record.save(&config.state)?;
            }
            let rtnetlink = call.host.rtnetlink;
            Ok(Connected { facts, rtnetlink })
        }
        Err(error) => {
            call.undo(&done, same.as_ref());
            if let Some(stale) = &stale {
                call.host.forget_interface();
                if let Err(error) = call.take_back_surplus(stale, &Plan::default()) {
                    tracing::warn!(interface, %error, "not all of an old record was taken back");
                }
            }
            let restored = match &same {
                Some(same) => same.save(&config.state),
                None => Record::remove(&config.state, interface),
            };
            if let Err(error) = restored {
                tracing::warn!(interface, %error, "the record");
            }
            Err(error)
        }
    }
}

/// Returns whether a guest that its bridge knows on another port is to come from there: not from the
/// port of another guest of ours, which has no business with its address.
fn comes_from(
    request: &Request,
    facts: &Facts,
    rtnetlink: &mut Rtnetlink,
    config: &Config,
) -> Result<bool> {
    let mut coming = false;
    for port in &facts.guest_at {
        if *port == facts.index || Some(*port) == facts.bridge {
            continue;
        }
        let Some(link) = rtnetlink.link_by_index(*port)? else {
            continue;
        };
        let record = Record::load(&config.state, &link.name).ok().flatten();
        match record.filter(|record| record.index == *port) {
            None => coming = true,
            // It moves within this node: its place here may be taken from it, by itself.
            Some(record) if record.place() == Some(request.nic.mac) => {
                rtnetlink.set_forwarding(*port, request.nic.mac, None, false)?;
                coming = true;
            }
            Some(_) => {}
        }
    }
    Ok(coming)
}

/// Disconnects an interface by its record; without one, only its binding is removed.
///
/// # Errors
/// Something could not be taken back: the rest was, and the record stays for the next try.
pub fn down(interface: &str, config: &Config) -> Result<()> {
    take_down(interface, None, config)
}

/// Takes back what is left of an interface that is gone, if its record is still that of the
/// interface with this index: another of the same name may have come meanwhile.
///
/// # Errors
/// As for [`down`].
pub fn clean_up(interface: &str, index: u32, config: &Config) -> Result<()> {
    take_down(interface, Some(index), config)
}

fn take_down(interface: &str, of: Option<u32>, config: &Config) -> Result<()> {
    let deadline = Deadline::start(config.deadline_seconds);
    if !agents::binding::is_interface_name(interface) {
        let reason = format!("{interface:?} is not an interface's name");
        return Err(Error::Usage(reason));
    }
    record::make_folder(&config.state)?;
    let lock = Lock::take(&config.state, &deadline)?;
    let record = Record::load(&config.state, interface)?;
    if of.is_some() && record.as_ref().map(|record| record.index) != of {
        return Ok(());
    }
    let Some(record) = record else {
        agents::binding::remove(&config.bindings, interface)
            .map_err(|error| Error::file(config.bindings.join(interface), error))?;
        return Record::remove(&config.state, interface);
    };
    disconnect(&record, config)?;
    drop(lock);
    // What looks after all interfaces stays, and has time.
    if of.is_none() {
        closing::leave_to_a_child();
    }
    Ok(())
}

/// Takes back what a record has, and the record; the caller has the lock.
fn disconnect(record: &Record, config: &Config) -> Result<()> {
    let interface = record.interface.as_str();
    let mut rtnetlink = Rtnetlink::open()?;
    let index = rtnetlink
        .link_by_name(interface)?
        .map(|link| link.index)
        .filter(|index| *index == record.index);
    if index.is_some() && !record.leaving {
        // Of a NIC that stays there, for whoever comes after a call that was killed.
        let mut leaving = record.clone();
        leaving.leaving = true;
        leaving.save(&config.state)?;
    }
    let mut call = Call {
        host: Host::new(rtnetlink, interface, index, config),
        config,
        interface,
    };
    call.take_back_surplus(record, &Plan::default())?;
    Record::remove(&config.state, interface)
}

/// Puts into the plan what each setting and the link were before us: as the record says if
/// there is one of the same interface, else as they are now.
fn remember(plan: &mut Plan, same: Option<&Record>) -> Result<()> {
    let known = |wanted: &str| {
        same.into_iter()
            .flat_map(|record| &record.steps)
            .find_map(|step| match step {
                Step::Sysctl { name, before, .. } if name == wanted => before.clone(),
                _ => None,
            })
    };
    let link = same
        .into_iter()
        .flat_map(|record| &record.steps)
        .find_map(|step| match step {
            Step::Link { before, .. } => Some(before.clone()),
            _ => None,
        });
    for step in &mut plan.steps {
        match step {
            Step::Sysctl { name, before, .. } => {
                *before = match known(name) {
                    Some(value) => Some(value),
                    None => sysctl::read(name)?,
                };
            }
            Step::Link { before, .. } => {
                if let Some(link) = &link {
                    before.clone_from(link);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Puts into the plan what the bridge was like before the first NIC of ours: as the record of
/// this one says, or that of any other NIC of the bridge, else as it is now.
fn remember_bridge(plan: &mut Plan, own: Option<&Record>, interface: &str, config: &Config) {
    for step in &mut plan.shared {
        let known = |record: &Record| {
            let found = record.shared.iter().find(|old| same_object(old, step))?;
            match found {
                Step::NoLinkLocalLearn { before, .. } => Some(*before),
                _ => None,
            }
        };
        if !matches!(step, Step::NoLinkLocalLearn { .. }) {
            continue;
        }
        let found = own.and_then(known).or_else(|| {
            let other = shared::another_holder(&config.state, step, interface)?;
            let record = Record::load(&config.state, &other).ok().flatten()?;
            known(&record)
        });
        if let (Some(found), Step::NoLinkLocalLearn { before, .. }) = (found, step) {
            *before = found;
        }
    }
}

fn add_missing(steps: &mut Vec<Step>, more: &[Step]) {
    for step in more {
        if !steps.contains(step) {
            steps.push(step.clone());
        }
    }
}

struct Call<'a> {
    host: Host,
    config: &'a Config,
    interface: &'a str,
}

/// A step that was begun.
struct Done {
    step: Step,
    shared: bool,
}

impl Call<'_> {
    fn carry_out(&mut self, plan: &Plan, deadline: &Deadline, done: &mut Vec<Done>) -> Result<()> {
        let shared = plan.shared.iter().map(|step| (step, true));
        let own = plan.steps.iter().map(|step| (step, false));
        for (step, shared) in shared.chain(own) {
            deadline.check(|| step.to_string())?;
            done.push(Done {
                step: step.clone(),
                shared,
            });
            if shared {
                shared::hold(&self.config.state, step, self.interface)?;
            }
            self.host.execute(step)?;
        }
        self.host.finish()
    }

    /// Takes back what a record has and the plan has not, the last first. Goes on after a
    /// failure, and returns the first.
    fn take_back_surplus(&mut self, record: &Record, plan: &Plan) -> Result<()> {
        let mut first = Ok(());
        for step in record.steps.iter().rev() {
            if plan.steps.iter().any(|kept| same_object(kept, step)) {
                continue;
            }
            first = first.and(self.host.revert(step));
        }
        for step in record.shared.iter().rev() {
            if !plan.shared.iter().any(|kept| same_object(kept, step)) {
                first = first.and(self.release(step));
            }
        }
        first
    }

    fn release(&mut self, step: &Step) -> Result<()> {
        if shared::release(&self.config.state, step, self.interface)? {
            self.host.revert(step)?;
        }
        Ok(())
    }

    /// After a failure: takes back what was done and was not there before, and puts back what
    /// was changed.
    fn undo(&mut self, done: &[Done], same: Option<&Record>) {
        let interface = self.interface;
        let warn = |step: &Step, error: Error| {
            tracing::warn!(interface, %step, %error, "could not be undone");
        };
        for Done { step, shared } in done.iter().rev() {
            // What was there in another form is put back below, without a gap.
            let was_there = same.is_some_and(|record| {
                let is_same = |old: &Step| same_object(old, step);
                record.steps.iter().any(is_same) || (*shared && record.shared.iter().any(is_same))
            });
            if was_there {
                continue;
            }
            let undone = if *shared {
                self.release(step)
            } else {
                self.host.revert(step)
            };
            if let Err(error) = undone {
                warn(step, error);
            }
        }
        for step in same.into_iter().flat_map(|record| &record.steps) {
            if let Err(error) = self.host.execute(step) {
                warn(step, error);
            }
        }
    }
}

/// Whether two steps are about the same thing, so that doing one replaces the other.
fn same_object(one: &Step, other: &Step) -> bool {
    match (one, other) {
        (Step::Sysctl { name, .. }, Step::Sysctl { name: other, .. }) => name == other,
        (Step::Link { .. }, Step::Link { .. })
        | (Step::Port { .. }, Step::Port { .. })
        | (Step::Vlans(_), Step::Vlans(_))
        | (Step::SwitchPort { .. }, Step::SwitchPort { .. })
        | (Step::SwitchSource { .. }, Step::SwitchSource { .. })
        | (Step::Rate { .. }, Step::Rate { .. })
        | (Step::Guard(_), Step::Guard(_))
        | (Step::Binding { .. }, Step::Binding { .. }) => true,
        (Step::Neighbour { address, .. }, Step::Neighbour { address: other, .. }) => {
            address == other
        }
        (Step::NoLinkLocalLearn { bridge, .. }, Step::NoLinkLocalLearn { bridge: other, .. }) => {
            bridge == other
        }
        (
            Step::Forwarding { mac, bridge, .. },
            Step::Forwarding {
                mac: other_mac,
                bridge: other,
                ..
            },
        ) => mac == other_mac && bridge == other,
        _ => one == other,
    }
}
