//! Links to an object.
//!
//! They are written without being made first: a list has thousands.

use std::fmt::{self, Display, Formatter};

use serde::{Serialize, Serializer};

use super::caller::Caller;

/// What is a string in JSON.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a dyn Display);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// Where something is by the caller's mount.
#[derive(Clone, Copy)]
struct Href<'a> {
    caller: &'a Caller,
    /// Where those of its kind are: `/compute/v2.0/servers`.
    kind: &'static str,
    id: Text<'a>,
}

impl Display for Href<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Caller { base, dialect, .. } = self.caller;
        let (prefix, kind, id) = (dialect.prefix(), self.kind, self.id.0);
        write!(formatter, "{base}{prefix}{kind}/{id}")
    }
}

impl Serialize for Href<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A link, with what it is to what has it.
#[derive(Serialize)]
pub struct Link<'a> {
    rel: &'static str,
    href: Href<'a>,
}

/// `self` and `bookmark`.
pub fn of<'a>(caller: &'a Caller, kind: &'static str, id: &'a dyn Display) -> [Link<'a>; 2] {
    let id = Text(id);
    let href = Href { caller, kind, id };
    ["self", "bookmark"].map(|rel| Link { rel, href })
}

/// An id, and where what it names is.
#[derive(Serialize)]
pub struct Linked<'a> {
    id: Text<'a>,
    links: [Link<'a>; 1],
}

impl<'a> Linked<'a> {
    pub fn new(caller: &'a Caller, kind: &'static str, id: &'a dyn Display) -> Self {
        let id = Text(id);
        let href = Href { caller, kind, id };
        let rel = "bookmark";
        let links = [Link { rel, href }];
        Self { id, links }
    }
}
