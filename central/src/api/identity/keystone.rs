//! An external Keystone, asked whether a token that is not ours is good.
//!
//! Facts about the answers are from a Keystone 30: a good token is 200 with the object that a login
//! gives; one that is not known, over or revoked is 404; 401 means that our own token is no longer
//! good, as after its time or after Keystone's keys were changed.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, Semaphore};

use crate::config;
use crate::ganeti::tls;
use crate::model::moment;

/// How many questions may be on their way at once: who sends tokens that are no tokens must not
/// make a crowd in front of Keystone.
const AT_ONCE: usize = 32;
/// The longest answer that is read, in bytes: without the catalog it is about 1 KB.
const ANSWER_LIMIT: usize = 256 << 10;
/// The longest token that Keystone is asked about; a Fernet token has about 200 characters.
const TOKEN_LIMIT: usize = 8 << 10;

/// Why Keystone could not tell.
#[derive(Debug, thiserror::Error)]
pub enum KeystoneError {
    /// A file cannot be read, or is not what it should be.
    #[error("keystone: {0}")]
    Configuration(String),
    /// It was not reached, or gave no answer that can be used.
    #[error("Keystone at {url}: {reason}")]
    NoAnswer { url: String, reason: String },
}

/// A good token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub user: Named,
    pub project: Option<Named>,
    /// The names of the roles.
    pub roles: Vec<String>,
    /// Microseconds since 1970.
    pub issued_at: i64,
    pub expires_at: i64,
}

/// A user or a project of Keystone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Named {
    pub id: String,
    pub name: String,
    pub domain: Domain,
}

/// Where a name is the only one of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Domain {
    pub id: String,
    pub name: String,
}

#[derive(Deserialize)]
struct Answer {
    token: TokenAnswer,
}

#[derive(Deserialize)]
struct TokenAnswer {
    user: Named,
    project: Option<Named>,
    #[serde(default)]
    roles: Vec<Role>,
    issued_at: String,
    expires_at: String,
}

#[derive(Deserialize)]
struct Role {
    name: String,
}

/// A client of one Keystone.
pub struct Keystone {
    http: Client,
    config: config::Keystone,
    password: String,
    /// Our own token; empty: none yet.
    service: Mutex<String>,
    places: Semaphore,
}

impl Keystone {
    /// A client; the password and the CA are read from their files now.
    ///
    /// # Errors
    /// [`KeystoneError::Configuration`].
    pub fn new(config: config::Keystone) -> Result<Self, KeystoneError> {
        let configuration = KeystoneError::Configuration;
        let file = &config.password_file;
        let password = std::fs::read_to_string(file)
            .map_err(|error| configuration(format!("cannot read {}: {error}", file.display())))?;
        let tls = tls::client_config(config.ca_file.as_deref(), false)
            .map_err(|error| configuration(error.to_string()))?;
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(config.timeout)
            .timeout(config.timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| configuration(error.to_string()))?;
        Ok(Self {
            http,
            config,
            password: password.trim_end_matches(['\n', '\r']).to_owned(),
            service: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
        })
    }

    /// What was configured.
    pub fn config(&self) -> &config::Keystone {
        &self.config
    }

    /// Whose a token is; none: it is not good.
    ///
    /// # Errors
    /// [`KeystoneError::NoAnswer`]: then nothing is known of the token.
    pub async fn validate(&self, token: &str) -> Result<Option<Found>, KeystoneError> {
        if token.len() > TOKEN_LIMIT || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(None);
        }
        // Who waits here waits no longer than for Keystone itself.
        let place = tokio::time::timeout(self.config.timeout, self.places.acquire()).await;
        let _place = match place {
            Ok(Ok(place)) => place,
            _ => return Err(self.no_answer("too many questions at once".to_owned())),
        };
        let service = self.service_token("").await?;
        let (mut status, mut text) = self.ask(&service, token).await?;
        if status == StatusCode::UNAUTHORIZED {
            let service = self.service_token(&service).await?;
            (status, text) = self.ask(&service, token).await?;
        }
        match status {
            StatusCode::OK => self.read(&text).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(self.no_answer(format!("{other} to a question about a token"))),
        }
    }

    /// Logs in, to see whether it can be done.
    ///
    /// # Errors
    /// It cannot.
    pub async fn check(&self) -> Result<(), KeystoneError> {
        self.service_token("").await.map(drop)
    }

    /// Our own token; another one than `refused`.
    async fn service_token(&self, refused: &str) -> Result<String, KeystoneError> {
        let mut known = self.service.lock().await;
        // Of many who were refused at once, the first logs in for all.
        if known.is_empty() || *known == refused {
            known.clear();
            *known = self.log_in().await?;
        }
        Ok(known.clone())
    }

    async fn log_in(&self) -> Result<String, KeystoneError> {
        let config = &self.config;
        let body = json!({"auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {
                    "name": config.username,
                    "domain": {"name": config.user_domain},
                    "password": self.password,
                }},
            },
            "scope": {"project": {
                "name": config.project,
                "domain": {"name": config.project_domain},
            }},
        }});
        let request = self.http.post(self.tokens()).json(&body);
        let (status, headers, _) = self.exchange(request).await?;
        if status != StatusCode::CREATED {
            return Err(self.no_answer(format!("{status} to our login as {}", config.username)));
        }
        let token = headers
            .get("x-subject-token")
            .and_then(|value| value.to_str().ok());
        token
            .map(str::to_owned)
            .ok_or_else(|| self.no_answer("a login without a token".to_owned()))
    }

    async fn ask(
        &self,
        service: &str,
        token: &str,
    ) -> Result<(StatusCode, Vec<u8>), KeystoneError> {
        let request = self
            .http
            .get(format!("{}?nocatalog", self.tokens()))
            .header("X-Auth-Token", service)
            .header("X-Subject-Token", token);
        let (status, _, text) = self.exchange(request).await?;
        Ok((status, text))
    }

    async fn exchange(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), KeystoneError> {
        let failed = |error: reqwest::Error| self.no_answer(chain(&error));
        let mut response = request.send().await.map_err(failed)?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            text.extend_from_slice(&chunk);
            if text.len() > ANSWER_LIMIT {
                return Err(self.no_answer(format!("an answer of more than {ANSWER_LIMIT} bytes")));
            }
        }
        Ok((response.status(), response.headers().clone(), text))
    }

    fn read(&self, text: &[u8]) -> Result<Found, KeystoneError> {
        parse(text).map_err(|reason| self.no_answer(reason))
    }

    fn tokens(&self) -> String {
        format!("{}/auth/tokens", self.config.url)
    }

    fn no_answer(&self, reason: String) -> KeystoneError {
        KeystoneError::NoAnswer {
            url: self.config.url.clone(),
            reason,
        }
    }
}

/// Reads the object that tells of a good token.
fn parse(text: &[u8]) -> Result<Found, String> {
    let Answer { token } = serde_json::from_slice(text)
        .map_err(|error| format!("an answer that tells of no token: {error}"))?;
    let time = |name: &str, text: &str| {
        moment::parse_iso(text).ok_or_else(|| format!("{name}: {text:?}: not a time"))
    };
    for named in [Some(&token.user), token.project.as_ref()]
        .into_iter()
        .flatten()
    {
        if named.id.is_empty() || named.id.len() > 64 {
            return Err(format!("id: {:?}: not an id", named.id));
        }
    }
    Ok(Found {
        issued_at: time("issued_at", &token.issued_at)?,
        expires_at: time("expires_at", &token.expires_at)?,
        user: token.user,
        project: token.project,
        roles: token.roles.into_iter().map(|role| role.name).collect(),
    })
}

/// An error with its causes; the URL in it has no secret.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// How long an answer is believed, at most until the token's own end.
pub fn life(config: &config::Keystone, found: &Found, now: i64) -> Duration {
    let left = u64::try_from(found.expires_at.saturating_sub(now)).unwrap_or(0);
    config.cache.min(Duration::from_micros(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Keystone 30 answered, some roles left out.
    const GOOD: &str = r#"{"token": {"methods": ["password"], "user": {"domain": {"id": "default",
        "name": "Default"}, "id": "727e79628f9747ffadaf17e3b2f8d8e3", "name": "admin",
        "password_expires_at": null}, "audit_ids": ["1GaTrPjyQIWVNLBRzlyxGw"],
        "expires_at": "2026-11-23T10:02:00.000000Z", "issued_at": "2026-11-23T09:02:00.000000Z",
        "project": {"domain": {"id": "default", "name": "Default"},
        "id": "bb730ed57a5f440d99bbc8b7f91eeaad", "name": "admin"}, "is_domain": false,
        "roles": [{"id": "75a530f3dc1b44a09c72b994e113b748", "name": "member"}]}}"#;

    #[test]
    fn a_recorded_answer_is_read() {
        let found = parse(GOOD.as_bytes()).unwrap();
        assert_eq!(found.user.id, "727e79628f9747ffadaf17e3b2f8d8e3");
        assert_eq!(found.project.unwrap().name, "admin");
        assert_eq!(found.roles, ["member"]);
        assert_eq!(found.expires_at - found.issued_at, 3_600_000_000);
    }

    #[test]
    fn what_tells_of_no_token_is_no_answer() {
        let long = GOOD.replace("bb730ed57a5f440d99bbc8b7f91eeaad", &"a".repeat(65));
        let timeless = GOOD.replace("2026-11-23T10:02:00.000000Z", "soon");
        for text in [
            "",
            "{}",
            "[]",
            r#"{"token": {}}"#,
            "<html>",
            &long,
            &timeless,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn no_answer_is_believed_longer_than_the_token_is_good() {
        let mut found = parse(GOOD.as_bytes()).unwrap();
        let config = config::Keystone {
            cache: Duration::from_secs(60),
            ..config::Keystone::default()
        };
        assert_eq!(life(&config, &found, found.issued_at), config.cache);
        found.expires_at = found.issued_at + 1_000_000;
        let second = Duration::from_secs(1);
        assert_eq!(life(&config, &found, found.issued_at), second);
        assert_eq!(life(&config, &found, i64::MAX), Duration::ZERO);
    }
}
