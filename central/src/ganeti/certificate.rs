//! The public key in an X.509 certificate.
//!
//! Ganeti makes its own certificates, of X.509 version 1 and without a subject alternative name,
//! which the usual verifiers refuse to look at. A certificate that is pinned byte by byte needs
//! no looking at but for its key: this walks to it (RFC 5280, section 4.1) and takes nothing else.

const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`, absent in version 1.
const VERSION: u8 = 0xa0;

/// The `subjectPublicKeyInfo` of a DER certificate, with its tag and length.
pub fn public_key_info(certificate: &[u8]) -> Option<&[u8]> {
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (mut fields, _) = element(outer.content, SEQUENCE)?;
    let mut rest = fields.content;
    if rest.first() == Some(&VERSION) {
        (fields, rest) = any(rest)?;
        let _ = fields;
    }
    // serialNumber, signature, issuer, validity, subject
    for _ in 0..5 {
        (_, rest) = any(rest)?;
    }
    let (key, _) = element(rest, SEQUENCE)?;
    Some(key.whole)
}

struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
}

fn element(input: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    let (element, rest) = any(input)?;
    (element.tag == tag).then_some((element, rest))
}

/// The first DER element of `input`, and what follows it.
fn any(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let tag = *input.first()?;
    let first = usize::from(*input.get(1)?);
    let (header, length) = if first < 0x80 {
        (2, first)
    } else {
        let count = first & 0x7f;
        if count == 0 || count > 4 {
            return None;
        }
        let mut length = 0_usize;
        for byte in input.get(2..2 + count)? {
            length = (length << 8) | usize::from(*byte);
        }
        (2 + count, length)
    };
    let end = header.checked_add(length)?;
    Some((
        Element {
            tag,
            whole: input.get(..end)?,
            content: input.get(header..end)?,
        },
        input.get(end..)?,
    ))
}
