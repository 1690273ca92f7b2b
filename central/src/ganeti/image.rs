//! The image parameters of the OS definition: the disk format (`img_format`) and the source
//! (`img_id`).
//!
//! The OS definition hands both to shell commands on a node, as root. One validator decides what
//! may get there: the API, the seed file and the builder of Ganeti's job all use it.

use std::fmt;

/// The longest source, in bytes.
pub const SOURCE_LIMIT: usize = 1000;

/// The characters of a source beside letters and digits. None of them means anything to a shell.
const PUNCTUATION: &[u8] = b"/._-:@%+=~,";

/// The formats that image OS definitions take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// A dump of a whole disk.
    Diskdump,
    /// The same under Glance's name.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// A dump of an ext2, ext3 or ext4 file system.
    Extdump,
    /// A dump of an NTFS file system.
    Ntfsdump,
}

impl DiskFormat {
    /// All formats.
    pub const ALL: [Self; 5] = [
        Self::Diskdump,
        Self::Raw,
        Self::Qcow2,
        Self::Extdump,
        Self::Ntfsdump,
    ];

    /// The format's name in the API and in `img_format`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diskdump => "diskdump",
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Extdump => "extdump",
            Self::Ntfsdump => "ntfsdump",
        }
    }

    /// Reads a format's name.
    ///
    /// # Errors
    /// [`ImageError::Format`].
    pub fn parse(name: &str) -> Result<Self, ImageError> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| ImageError::Format(excerpt(name)))
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A parameter of an image that no node may get.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The disk format is none of [`DiskFormat`].
    #[error("disk format {0:?}: must be one of diskdump, raw, qcow2, extdump, ntfsdump")]
    Format(String),
    /// The source has a character, a part or a scheme that it must not have.
    #[error("source {source_text:?}: {reason}")]
    Source {
        /// The beginning of the source.
        source_text: String,
        /// The rule that the source breaks.
        reason: &'static str,
    },
}

impl ImageError {
    /// The rule alone, for a message that names the field and the value itself.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Format(_) => "must be one of diskdump, raw, qcow2, extdump, ntfsdump",
            Self::Source { reason, .. } => reason,
        }
    }
}

/// The beginning of a text, for a message.
fn excerpt(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Checks the source and the disk format of an image; one without a source or a format is made by
/// an OS definition that needs none.
///
/// # Errors
/// [`ImageError`].
pub fn check_parameters(source: &str, format: &str) -> Result<(), ImageError> {
    if !source.is_empty() {
        check_source(source)?;
    }
    if !format.is_empty() {
        DiskFormat::parse(format)?;
    }
    Ok(())
}

/// Checks a folder of images, with or without a slash at its end.
///
/// # Errors
/// The rule that it breaks.
pub fn check_folder(folder: &str) -> Result<(), &'static str> {
    let inside = folder.trim_end_matches('/');
    let below = inside
        .strip_prefix("https://")
        .or_else(|| inside.strip_prefix("http://"))
        .map(|rest| rest.starts_with(|first: char| first.is_ascii_alphanumeric()))
        .unwrap_or_else(|| inside.starts_with('/'));
    match source_fault(inside) {
        Some(reason) => Err(reason),
        None if below => Ok(()),
        None => Err("must be an absolute path other than /, or an http or https URL"),
    }
}

/// Checks a source: a path, a name in the OS definition's own folder, or a URL.
///
/// # Errors
/// [`ImageError::Source`].
pub fn check_source(source: &str) -> Result<(), ImageError> {
    source_fault(source).map_or(Ok(()), |reason| {
        Err(ImageError::Source {
            source_text: excerpt(source),
            reason,
        })
    })
}

/// The rule that a source breaks.
fn source_fault(source: &str) -> Option<&'static str> {
    if source.is_empty() {
        return Some("must not be empty");
    }
    if source.len() > SOURCE_LIMIT {
        return Some("must have at most 1000 characters");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || PUNCTUATION.contains(&byte);
    if !source.bytes().all(plain) {
        return Some("must consist of letters, digits and /._-:@%+=~,");
    }
    if !source.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/') {
        return Some("must begin with a letter, a digit or /");
    }
    let rest = match source.split_once("://") {
        None => source,
        Some((scheme, rest)) => {
            if !SCHEMES.contains(&scheme) {
                return Some(
                    "must be a path or a URL with http, https, ftp, file, local or pithos",
                );
            }
            if NETWORK_SCHEMES.contains(&scheme) {
                let authority = rest.split('/').next().unwrap_or_default();
                if authority.is_empty() || authority.contains(['@', '%']) {
                    return Some("must name a host, without a user and without %");
                }
            }
            rest
        }
    };
    if rest.split('/').any(|part| part == "..") {
        return Some("must have no part ..");
    }
    escape_fault(rest.as_bytes())
}

const SCHEMES: [&str; 7] = [
    "http",
    "https",
    "ftp",
    "file",
    "local",
    "pithos",
    "pithosmap",
];
const NETWORK_SCHEMES: [&str; 3] = ["http", "https", "ftp"];

/// The rule that a percent-encoding breaks (RFC 3986, sections 2.1 and 2.3). An encoded character
/// that needs no encoding would be a second name of the same source, `%2e%2e` among them.
fn escape_fault(text: &[u8]) -> Option<&'static str> {
    let mut rest = text;
    while let Some(place) = rest.iter().position(|byte| *byte == b'%') {
        let digits = rest.get(place.saturating_add(1)..)?;
        let value = digits
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let Some(value) = value else {
            return Some("must have two hexadecimal digits after %");
        };
        if value.is_ascii_control() || value.is_ascii_alphanumeric() || b"/\\._-~%".contains(&value)
        {
            return Some("must encode with % only what needs it");
        }
        rest = digits.get(2..)?;
    }
    None
}

/// Returns whether a source is in one of the folders; a folder is an absolute path or an http or
/// https URL, with or without a slash at its end. Only a source that has one spelling is.
pub fn is_in_folders(source: &str, folders: &[String]) -> bool {
    let rest = source.split_once("://").map_or(source, |(_, rest)| rest);
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let canonical = check_source(source).is_ok()
        && !source.contains('%')
        && rest.split('/').all(|part| !part.is_empty() && part != ".");
    canonical
        && folders.iter().any(|folder| {
            let folder = folder.trim_end_matches('/');
            let inside = source.strip_prefix(folder);
            !folder.is_empty() && inside.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
        })
}

/// The identity of a source: sources that are the same file under two spellings have the same.
/// Any text has one, also what [`check_source`] refuses.
///
/// The scheme and the host have no case (RFC 3986, section 3); http and https are taken for the
/// same, as is a path for its `file` URL; empty parts and `.` do not count, `..` takes the part
/// before it, and `%` is decoded.
pub fn identity(source: &str) -> String {
    let (scheme, rest) = match source.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None if source.starts_with('/') => ("file".to_owned(), source),
        // A name in the OS definition's own folder.
        None => ("local".to_owned(), source),
    };
    let scheme = if scheme == "https" {
        "http".to_owned()
    } else {
        scheme
    };
    let (authority, path) = match scheme.as_str() {
        "http" | "ftp" => rest.split_once('/').unwrap_or((rest, "")),
        _ => ("", rest),
    };
    let host = authority.to_ascii_lowercase();
    let host = host.rsplit('@').next().unwrap_or_default();
    let host = [":80", ":443", ":21"]
        .iter()
        .find_map(|port| host.strip_suffix(port))
        .unwrap_or(host)
        .trim_end_matches('.');
    let path = decoded(path);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    format!("{scheme}://{host}/{}", parts.join("/"))
}

/// A text with its percent-encodings decoded, until there are none; what is not UTF-8 then is
/// replaced.
fn decoded(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    loop {
        let mut once = Vec::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        while let Some((first, after)) = rest.split_first() {
            let pair = after.get(..2).filter(|_| *first == b'%');
            let value = pair
                .and_then(|pair| std::str::from_utf8(pair).ok())
                .and_then(|pair| u8::from_str_radix(pair, 16).ok());
            match value {
                Some(value) => {
                    once.push(value);
                    rest = after.get(2..).unwrap_or_default();
                }
                None => {
                    once.push(*first);
                    rest = after;
                }
            }
        }
        // Each round is shorter, or the last.
        if once.len() == bytes.len() {
            return String::from_utf8_lossy(&once).into_owned();
        }
        bytes = once;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_formats_that_os_definitions_take_are_formats() {
        for format in DiskFormat::ALL {
            assert_eq!(DiskFormat::parse(format.name()), Ok(format));
        }
        for bad in [
            "",
            "RAW",
            "raw ",
            "vmdk",
            "vhd",
            "iso",
            "$(id)",
            "../../x",
            "qcow2\n",
            "-n",
            "qcow2,backing=/etc/shadow",
            "host_device",
            "nbd",
            "luks",
        ] {
            assert!(DiskFormat::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_source_is_a_plain_path_or_url() {
        for good in [
            "/srv/images/busybox.img",
            "https://images.example.org/debian-12+x.qcow2",
            "http://[::1]/x", // refused below: brackets
            "http://h:8080/a%20b",
            "file:///srv/x",
            "local://debian",
            "pithos://user@example.org/images/x",
            "debian-12.img",
        ] {
            let brackets = good.contains('[');
            assert_eq!(check_source(good).is_ok(), !brackets, "{good:?}");
        }
        for bad in [
            "",
            "$(id)",
            "`id`",
            "/srv/a b",
            "/srv/'x'",
            "/srv/\"x\"",
            "--help",
            "-x",
            ".x",
            "~root",
            "/srv/../etc/shadow",
            "..",
            "/srv/%2e%2e/x",
            "/srv/%2E./x",
            "/srv/a%2fb",
            "/x%",
            "/x%4",
            "/x%zz",
            "/x%0a",
            "/x%252e",
            "/x\n",
            "/x\0",
            "/x;y",
            "/x|y",
            "/x&y",
            "/x?y",
            "/x*",
            "/x\\y",
            "https://",
            "https:///x",
            "https://user:p@h/x",
            "http://h%2f/x",
            "HTTP://h/x",
            "gopher://h/x",
            "json:{}",
            "/é",
            "https://h/x#y",
            "/x!y",
            "/x<y",
            "/{a,b}",
            "/x(y)",
        ] {
            assert!(check_source(bad).is_err(), "{bad:?}");
        }
        assert!(check_source(&format!("/{}", "a".repeat(999))).is_ok());
        assert!(check_source(&format!("/{}", "a".repeat(1000))).is_err());
    }

    #[test]
    fn a_folder_holds_only_what_has_one_spelling() {
        let folders = ["/srv/images".to_owned(), "https://h.example/a/".to_owned()];
        let is_in = |source: &str| is_in_folders(source, &folders);
        for good in ["/srv/images/x", "/srv/images/a/b", "https://h.example/a/x"] {
            assert!(is_in(good), "{good}");
        }
        for bad in [
            "/srv/images",
            "/srv/images/",
            "/srv/images-of-others/x",
            "/srv/images//x",
            "/srv/images/./x",
            "/srv/images/../x",
            "/srv/images/x/",
            "/srv/images/%20x",
            "//srv/images/x",
            "https://h.example/a",
            "https://h.example/ab",
            "https://h.example//a/x",
            "https://H.example/a/x",
            "http://h.example/a/x",
            "https://h.example.evil/a/x",
            "https://h.example/a/%78",
            "file:///srv/images/x",
        ] {
            assert!(!is_in(bad), "{bad}");
        }
        assert!(!is_in_folders("/x", &[String::new(), "/".to_owned()]));
        for folder in ["/srv/images", "/srv/images/", "https://h", "http://h:80/a/"] {
            assert_eq!(check_folder(folder), Ok(()), "{folder}");
        }
        for folder in [
            "",
            "/",
            "images",
            "https://",
            "ftp://h/",
            "/a b",
            "/a/..",
            "https://u@h/",
        ] {
            assert!(check_folder(folder).is_err(), "{folder}");
        }
    }

    #[test]
    fn every_spelling_of_a_source_has_one_identity() {
        let same = |all: &[&str]| {
            for other in all {
                assert_eq!(identity(other), identity(all[0]), "{other}");
            }
        };
        same(&[
            "/srv/images/x",
            "//srv//images/x",
            "/srv/./images/x",
            "/srv/images/a/../x",
            "/srv/%69mages/x",
            "/srv/%2569mages/x",
            "/srv/images/%2e/x",
            "file:///srv/images/x",
            "FILE:///srv/images/x/",
        ]);
        same(&[
            "https://h.example/x",
            "http://H.Example/x",
            "https://h.example:443//x",
            "https://h.example./x",
            "https://u:p@h.example/./x",
            "https://h.example/x?y",
        ]);
        assert_ne!(identity("/srv/images/x"), identity("/srv/images/X"));
        assert_ne!(identity("http://h/x"), identity("http://h:81/x"));
        assert_ne!(identity("http://h/x"), identity("/h/x"));
    }

    #[test]
    fn any_text_has_an_identity() {
        for text in ["", "%", "%%", "%4", "%ff", "://", "../..", "%25%25", "é%c3"] {
            assert!(!identity(text).is_empty());
        }
    }
}
