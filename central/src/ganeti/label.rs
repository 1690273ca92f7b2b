//! The labels that users give their servers, as tags of the instances: `cyclades:user:` and the
//! label, quoted as in a URL's query, with `/` for `%` and `*` for `_`, since Ganeti's tags may
//! have neither `%` nor everything that a label may have.

const PREFIX: &str = "cyclades:user:";
/// The longest tag that Ganeti takes (`constants.MAX_TAG_LEN`).
const LONGEST: usize = 128;
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The tag of a label; none: Ganeti would not take it, it is too long.
pub fn tag(label: &str) -> Option<String> {
    let mut tag = PREFIX.to_owned();
    for byte in label.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'-' => tag.push(char::from(byte)),
            b' ' => tag.push('+'),
            b'_' => tag.push('*'),
            _ => {
                tag.push('/');
                for half in [byte >> 4, byte & 15] {
                    tag.push(char::from(*HEX.get(usize::from(half))?));
                }
            }
        }
    }
    (tag.len() <= LONGEST).then_some(tag)
}

/// The label that a tag is; none: it is another one of the instance's tags, or quotes nothing.
pub fn of_tag(tag: &str) -> Option<String> {
    let mut rest = tag.strip_prefix(PREFIX)?.bytes();
    let mut label = Vec::new();
    while let Some(byte) = rest.next() {
        label.push(match byte {
            b'+' => b' ',
            b'*' => b'_',
            b'/' => {
                let mut half = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (half()?, half()?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(label)
        .ok()
        .filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_label_is_quoted_as_ganeti_takes_it() {
        for (label, quoted) in [
            ("web", "cyclades:user:web"),
            ("front end", "cyclades:user:front+end"),
            ("a_b*c+d", "cyclades:user:a*b/2Ac/2Bd"),
            ("100%", "cyclades:user:100/25"),
            ("é", "cyclades:user:/C3/A9"),
        ] {
            assert_eq!(tag(label).as_deref(), Some(quoted));
            assert_eq!(of_tag(quoted).as_deref(), Some(label));
        }
        assert_eq!(of_tag("cyclades:user:~").as_deref(), Some("~"));
    }

    #[test]
    fn what_is_no_label_is_left_alone() {
        for other in [
            "synnefo:network:snf-nic-1:protected",
            "cyclades:user:",
            "cyclades:user:/",
            "cyclades:user:/4",
            "cyclades:user:/zz",
            "cyclades:user:/FF",
            "disable_ipv6",
        ] {
            assert_eq!(of_tag(other), None, "{other}");
        }
        assert_eq!(tag(&"é".repeat(20)), None);
    }

    proptest! {
        #[test]
        fn a_label_comes_back(label in "\\PC{1,19}") {
            if let Some(tag) = tag(&label) {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".+*/:@-_".contains(&byte);
                prop_assert!(tag.bytes().all(fits));
                prop_assert_eq!(of_tag(&tag), Some(label));
            }
        }

        #[test]
        fn any_tag_is_read(tag in "(cyclades:user:)?[\\PC/]{0,40}") {
            let _ = of_tag(&tag);
        }
    }
}
