//! Who is asking: the token, its user and project, and by which mount they came.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect, QueryTrait};
use sha2::{Digest, Sha256};

use super::authorization::{self, Role};
use super::context::Context;
use super::dialect::Dialect;
use super::fault::Fault;
use super::identity::{external, keystone};
use super::known_tokens::{self, Begun, Identity};
use crate::model::entity::{membership, project, token, user};
use crate::model::moment;

/// An authenticated request's sender.
#[derive(Debug, Clone)]
pub struct Caller {
    pub user_id: String,
    pub project_id: String,
    /// The role in the project.
    pub role: Role,
    /// What the caller showed.
    pub token: Token,
    pub dialect: Dialect,
    /// What comes before every path in a link.
    pub base: String,
}

/// A token, which no log gets to see.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(…)")
    }
}

impl Caller {
    /// A link to something of this mount: `url("/compute/v2.0/servers/5")`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{}{path}", self.base, self.dialect.prefix())
    }
}

impl FromRequestParts<Context> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, api: &Context) -> Result<Self, Fault> {
        let mount = Mount::of(parts, api)?;
        let given = single(&parts.headers, "X-Auth-Token")?
            .filter(|token| !token.is_empty())
            .ok_or_else(|| Fault::unauthorized("no token: send it in the header X-Auth-Token"))?;
        let shown = Token(given.to_owned());
        let identity = identify(api, given)
            .await?
            .ok_or_else(|| Fault::unauthorized("the token is not known, or has expired"))?;
        let route = parts.extensions.get::<MatchedPath>();
        let route = route.map_or(parts.uri.path(), MatchedPath::as_str);
        authorization::permit(identity.role, &parts.method, route)?;
        let project_id = identity.token.project_id.as_ref();
        Ok(Self {
            role: identity.role,
            token: shown,
            user_id: identity.user.id.clone(),
            project_id: project_id.unwrap_or(&identity.user.project_id).clone(),
            dialect: mount.dialect,
            base: mount.base,
        })
    }
}

/// The value of a header that there may be one of: of two, which one counts is not to be guessed.
///
/// # Errors
/// 400: there are several.
pub fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Fault::bad_request(format!("{name}: given more than once")));
    }
    Ok(first.and_then(|value| value.to_str().ok()).map(str::trim))
}

/// By which mount a request came, and how this server is reached from there.
#[derive(Debug, Clone)]
pub struct Mount {
    pub dialect: Dialect,
    pub base: String,
}

impl Mount {
    fn of(parts: &Parts, api: &Context) -> Result<Self, Fault> {
        let dialect = *parts
            .extensions
            .get::<Dialect>()
            .ok_or_else(|| Fault::internal("a route without a dialect"))?;
        Ok(Self {
            dialect,
            base: base_url(&parts.headers, api.config().base_url.as_deref()),
        })
    }

    /// As [`Caller::url`].
    pub fn url(&self, path: &str) -> String {
        format!("{}{}{path}", self.base, self.dialect.prefix())
    }
}

impl FromRequestParts<Context> for Mount {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, api: &Context) -> Result<Self, Fault> {
        Self::of(parts, api)
    }
}

fn base_url(headers: &HeaderMap, configured: Option<&str>) -> String {
    if let Some(url) = configured {
        return url.to_owned();
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| {
            host.len() <= 255
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
        })
        .unwrap_or("localhost");
    format!("http://{host}")
}

/// The owner of a token, of ours or of the external Keystone, if it is known and still good.
///
/// # Errors
/// The database fails; Keystone does not answer, or lets in somebody whom we do not.
pub async fn identify(api: &Context, given: &str) -> Result<Option<Arc<Identity>>, Fault> {
    let digest = digest(given);
    let now = Instant::now();
    if let Some(identity) = api.known_tokens().get(&digest, now) {
        let expired = identity.token.expires_at <= moment::now();
        return Ok((!expired).then_some(identity));
    }
    let begun = api.known_tokens().begin(now);
    match look_up(api, &digest).await? {
        Owner::Ours(identity) => {
            api.known_tokens()
                .put(begun, digest, Arc::clone(&identity), known_tokens::FRESH);
            Ok(Some(identity))
        }
        Owner::Gone => Ok(None),
        Owner::Unknown => identify_external(api, given, digest, begun).await,
    }
}

/// The owner of a token of ours.
///
/// # Errors
/// The database fails.
pub async fn identify_own(api: &Context, given: &str) -> Result<Option<Arc<Identity>>, Fault> {
    Ok(match look_up(api, &digest(given)).await? {
        Owner::Ours(identity) => Some(identity),
        Owner::Gone | Owner::Unknown => None,
    })
}

/// Whose a token is.
enum Owner {
    Ours(Arc<Identity>),
    /// It is over, or of somebody who may do nothing any more.
    Gone,
    /// Not one of ours.
    Unknown,
}

/// Returns whether the user of a token of ours may still act in its project: for what a token was shown
/// some time ago.
///
/// # Errors
/// The database fails.
pub async fn is_good(api: &Context, digest: &str) -> Result<bool, Fault> {
    Ok(matches!(look_up(api, digest).await?, Owner::Ours(_)))
}

/// Returns whether a user and a project are enabled, and the user is a `member` of it: users of the external
/// Keystone are members of nothing here.
///
/// # Errors
/// The database fails.
pub async fn may_act(
    api: &Context,
    user_id: &str,
    project_id: &str,
    member: bool,
) -> Result<bool, Fault> {
    let database = api.database();
    let user = user::Entity::find_by_id(user_id)
        .filter(user::Column::Enabled.eq(true))
        .one(database)
        .await?;
    let project = project::Entity::find_by_id(project_id)
        .filter(project::Column::Enabled.eq(true))
        .one(database)
        .await?;
    if user.is_none() || project.is_none() || !member {
        return Ok(user.is_some() && project.is_some());
    }
    let key = (user_id.to_owned(), project_id.to_owned());
    let membership = membership::Entity::find_by_id(key).one(database).await?;
    Ok(membership.is_some())
}

async fn look_up(api: &Context, digest: &str) -> Result<Owner, Fault> {
    let found = token::Entity::find_by_id(digest)
        .one(api.database())
        .await?;
    let Some(token) = found else {
        return Ok(Owner::Unknown);
    };
    if token.expires_at <= moment::now() {
        return Ok(Owner::Gone);
    }
    let user = user::Entity::find_by_id(token.user_id.as_str())
        .filter(user::Column::Enabled.eq(true))
        .one(api.database())
        .await?;
    let Some(user) = user else {
        return Ok(Owner::Gone);
    };
    let project = token
        .project_id
        .clone()
        .unwrap_or_else(|| user.project_id.clone());
    let enabled = project::Entity::find_by_id(project.as_str())
        .select_only()
        .column(project::Column::Id)
        .filter(project::Column::Enabled.eq(true))
        .into_query();
    let role = membership::Entity::find_by_id((user.id.clone(), project))
        .filter(membership::Column::ProjectId.in_subquery(enabled))
        .one(api.database())
        .await?
        .map(|membership| membership.role());
    // A project may be disabled.
    // Who was put out of a project has no business there, whatever the token says.
    let Some(role) = role else {
        return Ok(Owner::Gone);
    };
    Ok(Owner::Ours(Arc::new(Identity {
        role: Role::new(user.admin, role),
        token,
        user,
        external: false,
    })))
}

/// The owner of a token that is not ours, if the external Keystone, where there is one, knows it.
async fn identify_external(
    api: &Context,
    given: &str,
    digest: String,
    begun: Begun,
) -> Result<Option<Arc<Identity>>, Fault> {
    let Some(keystone) = api.keystone() else {
        return Ok(None);
    };
    let Some(found) = keystone.validate(given).await? else {
        return Ok(None);
    };
    let now = moment::now();
    if found.expires_at <= now {
        return Ok(None);
    }
    let identity = Arc::new(external::admit(api, &digest, &found).await?);
    let life = keystone::life(keystone.config(), &found, now);
    api.known_tokens()
        .put(begun, digest, Arc::clone(&identity), life);
    Ok(Some(identity))
}

/// What is kept of a token. It has 256 bits of its own, so a plain hash is enough, and looking
/// the hash up tells nothing of the token by the time it takes.
pub fn digest(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// Lowercase hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_host_does_not_get_into_links() {
        let with = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            base_url(&headers, None)
        };
        assert_eq!(with("cloud:8774"), "http://cloud:8774");
        assert_eq!(with("[::1]:80"), "http://[::1]:80");
        assert_eq!(with("x\"><script>"), "http://localhost");
        assert_eq!(base_url(&HeaderMap::new(), Some("https://c")), "https://c");
    }
}
