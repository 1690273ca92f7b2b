//! One update to the name server, over TCP, and its answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::TSigner;

use agents::message::EventTime;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Why an update is not done.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The server is not there or does not answer.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The message cannot be made, or the answer is none, or is not signed as it should be.
    #[error("{0}")]
    Protocol(#[from] hickory_proto::ProtoError),
    /// The answer cannot be read.
    #[error("{0}")]
    Answer(String),
    /// The server refused.
    #[error("the server says {0}")]
    Refused(ResponseCode),
}

/// Sends an update and waits for its answer.
///
/// # Errors
/// See [`ExchangeError`].
pub fn exchange(
    server: SocketAddr,
    message: &mut Message,
    signer: Option<&TSigner>,
) -> Result<(), ExchangeError> {
    let verifier = match signer {
        None => None,
        Some(signer) => message.finalize(signer, EventTime::now().seconds())?,
    };
    let request = message.to_vec()?;
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let length = u16::try_from(request.len())
        .map_err(|_| ExchangeError::Answer("the update is too long".to_owned()))?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&request);
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    let parsed =
        Message::from_vec(&answer).map_err(|error| ExchangeError::Answer(error.to_string()))?;
    if parsed.metadata.id != message.metadata.id {
        let reason = "the answer is to another question".to_owned();
        return Err(ExchangeError::Answer(reason));
    }
    match parsed.metadata.response_code {
        ResponseCode::NoError => {
            if let Some(mut verifier) = verifier {
                verifier.verify(&answer)?;
            }
            Ok(())
        }
        other => Err(ExchangeError::Refused(other)),
    }
}
