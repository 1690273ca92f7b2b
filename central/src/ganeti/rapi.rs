//! A client of Ganeti's remote API, version 2.
//!
//! Facts about the answers are from recordings of Ganeti 3.0.2: a submission answers 200 with
//! the job id as JSON; a refusal answers `{"code", "message", "explain"}` with the message
//! HTML-escaped; asking for a job that does not exist answers 200 with every field null.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::tls::{self, TlsError};
use crate::model::entity::backend;

/// Why a call failed, by what it means for the caller.
#[derive(Debug, thiserror::Error)]
pub enum RapiError {
    /// The call cannot have reached Ganeti: it may be repeated, or given up, at will.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// Where it was to go.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The call may or may not have been carried out.
    #[error("no answer from {url}: {reason}")]
    Unknown {
        /// Where it went.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// Ganeti said no, and nothing was done.
    #[error("{url} refused: {status}: {message}")]
    Refused {
        /// Where it went.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Ganeti's reason.
        message: String,
    },
    /// Nothing is asked of the cluster until an operator has looked at it.
    #[error("backend {backend} is held: {reason}")]
    Held {
        /// The backend's name.
        backend: String,
        /// Why.
        reason: String,
    },
    /// It can never be asked: what it is about is gone, or cannot be read.
    #[error("{0}")]
    Impossible(String),
    /// The backend cannot be talked to as it is configured.
    #[error("backend {backend}: {reason}")]
    Configuration {
        /// The backend's name.
        backend: String,
        /// What is wrong.
        reason: String,
    },
}

impl RapiError {
    /// Returns whether another attempt can only end the same: the call itself is wrong, or there is
    /// nothing that it could be about. Wrong credentials, a queue that is drained or full, and
    /// whatever else Ganeti answers with 5xx, are put right by an operator.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                (400..500).contains(status) && !matches!(status, 401 | 403 | 407 | 408 | 429)
            }
            Self::Impossible(_) => true,
            Self::Unreachable { .. }
            | Self::Unknown { .. }
            | Self::Held { .. }
            | Self::Configuration { .. } => false,
        }
    }
}

/// One cluster's RAPI.
pub struct Rapi {
    http: Client,
    base: String,
    user: String,
    password: String,
}

/// How long a connection may take to come up; the whole call has the configured time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes: 5000 instances in bulk are about 25 MB.
const ANSWER_LIMIT: usize = 256 << 20;

impl Rapi {
    /// A client for `backend`; the password and the CA are read from their files now.
    ///
    /// # Errors
    /// [`RapiError::Configuration`]: a file cannot be read, or is not what it should be.
    pub fn new(backend: &backend::Model, timeout: Duration) -> Result<Self, RapiError> {
        let configuration = |reason: String| RapiError::Configuration {
            backend: backend.name.clone(),
            reason,
        };
        let password = std::fs::read_to_string(&backend.password_file).map_err(|error| {
            configuration(format!("cannot read {}: {error}", backend.password_file))
        })?;
        if backend.url.starts_with("https://") && backend.ca_file.is_none() && !backend.insecure {
            return Err(configuration(
                "no CA file: name the cluster's rapi certificate, or say insecure".to_owned(),
            ));
        }
        let tls = tls::client_config(backend.ca_file.as_deref().map(Path::new), backend.insecure)
            .map_err(|error: TlsError| configuration(error.to_string()))?;
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| configuration(error.to_string()))?;
        Ok(Self {
            http,
            base: backend.url.trim_end_matches('/').to_owned(),
            user: backend.username.clone(),
            password: password.trim_end_matches(['\n', '\r']).to_owned(),
        })
    }

    /// The answer to a call; `None` for 404.
    ///
    /// # Errors
    /// See [`RapiError`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Option<Value>, RapiError> {
        let Some(text) = self.exchange(method, path, query, body).await? else {
            return Ok(None);
        };
        self.parse(path, &text).map(Some)
    }

    /// `GET path` as a type that has only what is needed: a bulk answer is long, and as
    /// [`Value`] several times that.
    ///
    /// # Errors
    /// See [`RapiError`]; [`RapiError::Unknown`] also for an answer of another shape.
    pub async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, RapiError> {
        let text = self.exchange(Method::GET, path, query, None).await?;
        self.parse(path, &text.ok_or_else(|| self.nothing(path))?)
    }

    fn parse<T: DeserializeOwned>(&self, path: &str, text: &[u8]) -> Result<T, RapiError> {
        serde_json::from_slice(text).map_err(|error| RapiError::Unknown {
            url: format!("{}{path}", self.base),
            reason: format!("the answer is not what it should be: {error}"),
        })
    }

    fn nothing(&self, path: &str) -> RapiError {
        RapiError::Refused {
            url: format!("{}{path}", self.base),
            status: 404,
            message: "nothing there".to_owned(),
        }
    }

    /// The bytes of the answer to a call; `None` for 404.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Option<Vec<u8>>, RapiError> {
        let url = format!("{}{path}", self.base);
        let mut address = reqwest::Url::parse(&url).map_err(|error| RapiError::Unreachable {
            url: url.clone(),
            reason: error.to_string(),
        })?;
        if !query.is_empty() {
            address.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self
            .http
            .request(method, address)
            .basic_auth(&self.user, Some(&self.password));
        if let Some(body) = body {
            request = request.json(body);
        }
        let failed = |error: reqwest::Error| {
            let reason = chain(&error);
            if error.is_connect() || error.is_builder() {
                RapiError::Unreachable {
                    url: url.clone(),
                    reason,
                }
            } else {
                RapiError::Unknown {
                    url: url.clone(),
                    reason,
                }
            }
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            text.extend_from_slice(&chunk);
            if text.len() > ANSWER_LIMIT {
                return Err(RapiError::Unknown {
                    url,
                    reason: format!("an answer of more than {ANSWER_LIMIT} bytes"),
                });
            }
        }
        if status.is_success() {
            return Ok(Some(text));
        }
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        // 502 and 504 come from something in between, or from luxid not answering in time: the
        // job may be in the queue nevertheless.
        if matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
        ) {
            return Err(RapiError::Unknown {
                url,
                reason: status.to_string(),
            });
        }
        let message = serde_json::from_slice::<Value>(&text)
            .ok()
            .and_then(|answer| Some(answer.get("message")?.as_str()?.to_owned()))
            .map_or_else(|| status.to_string(), |text| unescaped(&text));
        Err(RapiError::Refused {
            url,
            status: status.as_u16(),
            message,
        })
    }

    /// Submits a job; returns its id. `reason` goes into the job's reason trail, by which it can
    /// be found again.
    ///
    /// # Errors
    /// See [`RapiError`]. 404 is [`RapiError::Refused`] here: the resource itself is unknown.
    pub async fn submit(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
        reason: &str,
    ) -> Result<i64, RapiError> {
        let mut query = query.to_vec();
        query.push(("reason", reason));
        let answer = self.call(method, path, &query, body).await?;
        match answer {
            None => Err(RapiError::Refused {
                url: format!("{}{path}", self.base),
                status: 404,
                message: "not known to this RAPI".to_owned(),
            }),
            // Some resources answer with the id as a string.
            Some(answer) => answer
                .as_i64()
                .or_else(|| answer.as_str()?.parse().ok())
                .ok_or_else(|| RapiError::Unknown {
                    url: format!("{}{path}", self.base),
                    reason: format!("no job id in {answer}"),
                }),
        }
    }

    /// `GET path`; an error where nothing is there.
    ///
    /// # Errors
    /// See [`RapiError`].
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, RapiError> {
        self.call(Method::GET, path, query, None)
            .await?
            .ok_or_else(|| self.nothing(path))
    }

    /// An instance as `GET /2/instances/N` has it; none: there is no such instance.
    ///
    /// # Errors
    /// See [`RapiError`].
    pub async fn instance(&self, name: &str) -> Result<Option<Value>, RapiError> {
        self.call(Method::GET, &format!("/2/instances/{name}"), &[], None)
            .await
    }

    /// A network as `GET /2/networks/N` has it; none: there is no such network.
    ///
    /// # Errors
    /// See [`RapiError`].
    pub async fn network(&self, name: &str) -> Result<Option<Value>, RapiError> {
        self.call(Method::GET, &format!("/2/networks/{name}"), &[], None)
            .await
    }

    /// The names of the node groups.
    ///
    /// # Errors
    /// See [`RapiError`].
    pub async fn groups(&self) -> Result<Vec<String>, RapiError> {
        let answer = self.get("/2/groups", &[]).await?;
        Ok(answer
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|group| Some(group.get("name")?.as_str()?.to_owned()))
            .collect())
    }

    /// The job whose reason trail has `reason`, if it is still in the queue.
    ///
    /// # Errors
    /// See [`RapiError`].
    pub async fn job_by_reason(&self, reason: &str) -> Result<Option<i64>, RapiError> {
        let jobs = self.get("/2/jobs", &[("bulk", "1")]).await?;
        Ok(jobs.as_array().and_then(|jobs| {
            jobs.iter()
                .find(|job| has_reason(job, reason))
                .and_then(|job| job.get("id")?.as_i64())
        }))
    }
}

fn has_reason(job: &Value, reason: &str) -> bool {
    job.get("ops")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|op| op.get("reason")?.as_array())
        .flatten()
        .any(|entry| entry.get(1).and_then(Value::as_str) == Some(reason))
}

/// An error and all that led to it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Undoes the escaping that Ganeti does to its messages.
fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#x27;", "'")
        .replace("&amp;", "&")
}
