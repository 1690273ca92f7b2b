//! Refusals of a broker, and their consequences.

use std::fmt;

/// The reason that a message was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// An exception of AMQP 0-9-1, section 1.2 of its reference: the broker closed the channel
    /// or the connection.
    Exception {
        /// The reply code.
        code: u16,
        /// The broker's words.
        text: String,
    },
    /// The connection broke, or nothing was said in time.
    Lost(String),
}

/// The part of what is sent that an exception concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This one message, whenever it is sent.
    Message,
    /// All messages with its routing key, until an operator changes something at the broker.
    Key,
    /// Not the message, as far as the code says.
    Elsewhere,
}

impl Refusal {
    /// The part of what is sent that is refused, if the message was the only one under way.
    pub fn fault(&self) -> Fault {
        match self {
            // PRECONDITION_FAILED: among others a message above the broker's size limit
            Self::Exception { code: 406, .. } => Fault::Message,
            // ACCESS_REFUSED: a permission for the exchange, or for the topic
            Self::Exception { code: 403, .. } => Fault::Key,
            Self::Exception { .. } | Self::Lost(_) => Fault::Elsewhere,
        }
    }

    /// The broker's size limit in bytes, if it is what the broker speaks of: "message size 200500
    /// is larger than configured max size 131072" (RabbitMQ).
    pub fn size_limit(&self) -> Option<usize> {
        let Self::Exception { code: 406, text } = self else {
            return None;
        };
        let (_, limit) = text.rsplit_once("max size ")?;
        let digits = limit
            .find(|letter: char| !letter.is_ascii_digit())
            .map_or(Some(limit), |end| limit.get(..end))?;
        digits.parse().ok()
    }
}

impl From<&lapin::Error> for Refusal {
    fn from(error: &lapin::Error) -> Self {
        match error.kind() {
            lapin::ErrorKind::ProtocolError(error) => Self::Exception {
                code: error.get_id(),
                text: error.get_message().to_string(),
            },
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // RabbitMQ's text begins with the code's name
            Self::Exception { code, text } => write!(formatter, "{code} {text}"),
            Self::Lost(reason) => formatter.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(code: u16, text: &str) -> Refusal {
        let text = text.to_owned();
        Refusal::Exception { code, text }
    }

    #[test]
    fn the_size_limit_is_read_from_the_brokers_words_or_not_at_all() {
        let text =
            "PRECONDITION_FAILED - message size 200500 is larger than configured max size 131072";
        assert_eq!(exception(406, text).size_limit(), Some(131_072));
        assert_eq!(
            exception(406, &format!("{text}.")).size_limit(),
            Some(131_072)
        );
        for other in [
            "",
            "max size ",
            "max size x",
            "max size 99999999999999999999",
        ] {
            assert_eq!(exception(406, other).size_limit(), None, "{other}");
        }
        assert_eq!(exception(403, text).size_limit(), None);
    }

    #[test]
    fn a_code_says_what_is_refused() {
        assert_eq!(exception(406, "").fault(), Fault::Message);
        assert_eq!(exception(403, "").fault(), Fault::Key);
        for code in [320, 404, 501, 504, 541] {
            assert_eq!(exception(code, "").fault(), Fault::Elsewhere, "{code}");
        }
        assert_eq!(Refusal::Lost(String::new()).fault(), Fault::Elsewhere);
    }
}
