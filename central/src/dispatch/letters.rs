//! The dead letters: looking at them, and what a person decides about them.
//!
//! What is looked at is held without an acknowledgement: it goes back when the connection ends,
//! however that comes about.

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::AMQPValue;
use lapin::{Channel, Confirmation, Connection};
use sha2::{Digest, Sha256};

use super::consumer;
use super::moving::{QUEUE, REASON, ROUTING_KEY};

/// The most letters that are held at once.
const MOST: usize = 10_000;

/// What could not be done with the dead letters.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// No broker could be reached.
    #[error("no broker answers: {0}")]
    Away(String),
    /// The broker refused something.
    #[error("the broker: {0}")]
    Broker(#[from] lapin::Error),
    /// It has nowhere to go.
    #[error("letter {0}: the broker does not take it for queue {1:?}")]
    NotTaken(String, String),
}

/// A message that could not be applied.
pub struct Letter {
    /// What it is called here: the same whenever the same message is looked at.
    pub id: String,
    /// The queue that it came from.
    pub queue: String,
    pub routing_key: String,
    /// Why it could not be applied.
    pub reason: String,
    /// When its sender sent it, in seconds since 1970.
    pub sent_at: Option<u64>,
    delivery: Delivery,
}

impl Letter {
    fn new(delivery: Delivery) -> Self {
        let header = |name: &str| {
            let headers = delivery.properties.headers().as_ref()?;
            match headers.inner().get(name)? {
                AMQPValue::LongString(text) => Some(text.to_string()),
                _ => None,
            }
        };
        let digest = Sha256::digest(&delivery.data);
        let id: String = digest
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            id,
            queue: header(QUEUE).unwrap_or_default(),
            routing_key: header(ROUTING_KEY).unwrap_or_else(|| delivery.routing_key.to_string()),
            reason: header(REASON).unwrap_or_else(|| "not known".to_owned()),
            sent_at: *delivery.properties.timestamp(),
            delivery,
        }
    }

    /// The message's body.
    pub fn body(&self) -> &[u8] {
        &self.delivery.data
    }
}

/// The queue of the dead letters, open.
pub struct Letters {
    channel: Channel,
    dead: String,
    _connection: Connection,
}

/// A connection to the first broker that answers.
///
/// # Errors
/// None does.
pub async fn connect(urls: &[String], name: &str) -> Result<Connection, LetterError> {
    let mut reason = "none is configured".to_owned();
    for url in urls {
        match consumer::connect(url, name).await {
            Ok(connection) => return Ok(connection),
            Err(error) => reason = format!("{}: {error}", consumer::shown(url)),
        }
    }
    Err(LetterError::Away(reason))
}

impl Letters {
    /// Opens the queue.
    ///
    /// # Errors
    /// See [`LetterError`].
    pub async fn open(urls: &[String], prefix: &str) -> Result<Self, LetterError> {
        let connection = connect(urls, "snf-central queue").await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let (_, dead) = consumer::queues(prefix);
        Ok(Self {
            channel,
            dead,
            _connection: connection,
        })
    }

    /// All the letters there are, at most ten thousand.
    ///
    /// # Errors
    /// See [`LetterError`].
    pub async fn all(&self) -> Result<Vec<Letter>, LetterError> {
        let mut letters = Vec::new();
        while letters.len() < MOST {
            let got = self
                .channel
                .basic_get(self.dead.as_str().into(), BasicGetOptions::default())
                .await?;
            match got {
                Some(message) => letters.push(Letter::new(message.delivery)),
                None => break,
            }
        }
        Ok(letters)
    }

    /// Puts a letter back into the queue that it came from, to be applied once more.
    ///
    /// # Errors
    /// See [`LetterError`]; the letter is still there then.
    pub async fn retry(&self, letter: &Letter) -> Result<(), LetterError> {
        let delivery = &letter.delivery;
        let mut properties = delivery.properties.clone().with_delivery_mode(2);
        if let Some(headers) = delivery.properties.headers() {
            let mut kept = lapin::types::FieldTable::default();
            for (name, value) in headers.inner() {
                if ![REASON, QUEUE].contains(&name.as_str()) {
                    kept.insert(name.clone(), value.clone());
                }
            }
            properties = properties.with_headers(kept);
        }
        let confirmed = self
            .channel
            .basic_publish(
                "".into(),
                letter.queue.as_str().into(),
                BasicPublishOptions {
                    mandatory: true,
                    ..BasicPublishOptions::default()
                },
                &delivery.data,
                properties,
            )
            .await?
            .await?;
        if !matches!(confirmed, Confirmation::Ack(None)) {
            return Err(LetterError::NotTaken(
                letter.id.clone(),
                letter.queue.clone(),
            ));
        }
        self.drop(letter).await
    }

    /// Throws a letter away.
    ///
    /// # Errors
    /// See [`LetterError`].
    pub async fn drop(&self, letter: &Letter) -> Result<(), LetterError> {
        Ok(letter
            .delivery
            .ack(BasicAckOptions::default())
            .await
            .map(|_| ())?)
    }
}
