//! Records in the native protocol of systemd's journal (systemd.io, JOURNAL_NATIVE_PROTOCOL).
//!
//! `MESSAGE` has the fields of a record behind its text, as on standard error, since that is
//! what `journalctl` shows and searches (`-g`). Each field is a journal field of its own as
//! well, with the prefix `SNF_`: `journalctl SNF_INTERFACE=tap3`.

use std::fmt::{self, Write as _};
use std::io::{self, IoSlice, Seek, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The socket of journald's native protocol.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// Prefix of the fields of records: keeps them apart from the journal's own.
const PREFIX: &str = "SNF_";
/// Bytes that the name of a journal field may have.
const NAME_LIMIT: usize = 64;

/// A layer that sends records to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    identifier: String,
}

impl Journal {
    /// Connects to the journal at `socket`; `identifier` becomes `SYSLOG_IDENTIFIER`.
    ///
    /// # Errors
    /// Nobody listens on the socket.
    pub fn connect(socket: &Path, identifier: &str) -> io::Result<Self> {
        let connected = UnixDatagram::unbound()?;
        connected.connect(socket)?;
        Ok(Self {
            socket: connected,
            identifier: identifier.to_owned(),
        })
    }

    fn send(&self, record: &[u8]) -> io::Result<()> {
        match self.socket.send(record) {
            Ok(_) => Ok(()),
            // Larger than a datagram may be: the journal takes a sealed file instead.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => self.send_file(record),
            Err(error) => Err(error),
        }
    }

    fn send_file(&self, record: &[u8]) -> io::Result<()> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = std::fs::File::from(memfd_create(c"journal", flags)?);
        file.write_all(record)?;
        file.rewind()?;
        seal(&file)?;
        let files = [file.as_raw_fd()];
        sendmsg::<UnixAddr>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&[])],
            &[ControlMessage::ScmRights(&files)],
            MsgFlags::empty(),
            None,
        )?;
        Ok(())
    }
}

fn seal(file: &std::fs::File) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    fcntl(file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(())
}

/// The fields of a span: as text, and as they are sent.
struct SpanFields {
    text: String,
    sent: Vec<u8>,
}

impl<S> Layer<S> for Journal
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut fields = SpanFields {
            text: String::new(),
            sent: Vec::new(),
        };
        let _ = DefaultFields::new().format_fields(Writer::new(&mut fields.text), attributes);
        attributes.record(&mut FieldWriter(&mut fields.sent));
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut extensions = span.extensions_mut();
        if let Some(fields) = extensions.get_mut::<SpanFields>() {
            fields.text.push(' ');
            let _ = DefaultFields::new().format_fields(Writer::new(&mut fields.text), values);
            values.record(&mut FieldWriter(&mut fields.sent));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut message = String::new();
        let mut record = Vec::with_capacity(256);
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(fields) = span.extensions().get::<SpanFields>() {
                let _ = write!(message, "{}{{{}}}: ", span.name(), fields.text);
                record.extend_from_slice(&fields.sent);
            }
        }
        let _ = DefaultFields::new().format_fields(Writer::new(&mut message), event);
        event.record(&mut FieldWriter(&mut record));
        put(&mut record, "MESSAGE", &message);
        put(&mut record, "PRIORITY", priority(*event.metadata().level()));
        put(&mut record, "SYSLOG_IDENTIFIER", &self.identifier);
        put(&mut record, "TARGET", event.metadata().target());
        // A journal that is not there has no place for a complaint about it.
        let _ = self.send(&record);
    }
}

/// The severity of a record (syslog.h).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// Writes the fields of a record, but its message, as journal fields.
struct FieldWriter<'a>(&'a mut Vec<u8>);

impl FieldWriter<'_> {
    fn put(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            put(self.0, &journal_name(field.name()), value);
        }
    }
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// The name of a journal field: uppercase letters, digits and underscores.
fn journal_name(field: &str) -> String {
    let plain = field.chars().map(|character| {
        if character.is_ascii_alphanumeric() {
            character.to_ascii_uppercase()
        } else {
            '_'
        }
    });
    PREFIX.chars().chain(plain).take(NAME_LIMIT).collect()
}

/// Appends one field: `NAME=value`, or with the length in front where the value has lines.
fn put(record: &mut Vec<u8>, name: &str, value: &str) {
    record.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        record.push(b'\n');
        record.extend_from_slice(&length.to_le_bytes());
    } else {
        record.push(b'=');
    }
    record.extend_from_slice(value.as_bytes());
    record.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    /// One field of a record as it was received.
    fn field<'a>(record: &'a [u8], name: &str) -> Option<&'a str> {
        let mut rest = record;
        while let Some(end) = rest.iter().position(|byte| b"=\n".contains(byte)) {
            let found = std::str::from_utf8(&rest[..end]).unwrap();
            let (value, after) = if rest[end] == b'=' {
                let value = rest[end + 1..].split(|byte| *byte == b'\n').next().unwrap();
                (value, end + 1 + value.len() + 1)
            } else {
                let length: [u8; 8] = rest[end + 1..end + 9].try_into().unwrap();
                let length = usize::try_from(u64::from_le_bytes(length)).unwrap();
                (&rest[end + 9..end + 9 + length], end + 9 + length + 1)
            };
            if found == name {
                return Some(std::str::from_utf8(value).unwrap());
            }
            rest = &rest[after..];
        }
        None
    }

    #[test]
    fn a_record_has_its_fields_in_the_message_and_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let layer = Journal::connect(&path, "snf-test").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", id = %"r-1");
            let _inside = span.enter();
            tracing::warn!(interface = "tap3", error = %"two\nlines", "binding refused");
        });
        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).unwrap();
        let record = &buffer[..length];
        assert_eq!(
            field(record, "MESSAGE"),
            Some("request{id=r-1}: binding refused interface=\"tap3\" error=two\nlines")
        );
        assert_eq!(field(record, "SNF_INTERFACE"), Some("tap3"));
        assert_eq!(field(record, "SNF_ERROR"), Some("two\nlines"));
        assert_eq!(field(record, "SNF_ID"), Some("r-1"));
        assert_eq!(field(record, "PRIORITY"), Some("4"));
        assert_eq!(field(record, "SYSLOG_IDENTIFIER"), Some("snf-test"));
    }

    #[test]
    fn a_record_larger_than_a_datagram_is_a_sealed_file() {
        use nix::sys::socket::{ControlMessageOwned, recvmsg};
        use std::io::{IoSliceMut, Read};
        use std::os::fd::FromRawFd;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path, "snf-test").unwrap();
        let large = "x".repeat(1 << 20);
        let mut record = Vec::new();
        put(&mut record, "MESSAGE", &large);
        journal.send(&record).unwrap();

        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let mut bytes = [0; 16];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<UnixAddr>(
            receiver.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        assert_eq!(received.bytes, 0);
        let Some(ControlMessageOwned::ScmRights(files)) = received.cmsgs().unwrap().next() else {
            panic!("no file came");
        };
        #[allow(unsafe_code)]
        // SAFETY: the descriptor was received just now and has no other owner.
        let mut file = unsafe { std::fs::File::from_raw_fd(files[0]) };
        assert!(seal(&file).is_err(), "the file is not sealed");
        let mut sent = Vec::new();
        file.read_to_end(&mut sent).unwrap();
        assert_eq!(field(&sent, "MESSAGE"), Some(large.as_str()));
    }
}
