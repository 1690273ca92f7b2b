//! Authorization: the roles, the role that each operation needs, and what else a role permits.
//!
//! Every request with a token passes [`permit`] before its handler runs: the role that the table
//! of operations names is needed, and an operation that no table names is refused. Rules that
//! depend on an object or on a field of the request are a [`Privilege`], which handlers ask with
//! [`Role::require`] or [`Role::has`]. No handler compares roles itself.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::http::Method;
use serde_json::{Value, json};

use super::dialect::Dialect;
use super::fault::Fault;
use super::openapi::operations;
use crate::model::entity::{membership, server};

/// The role of a caller in the project of the token; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Uses the resources of the project.
    Member,
    /// Manages the memberships, the limits and the images of the project.
    ProjectAdministrator,
    /// Administers the cloud.
    CloudAdministrator,
}

impl Role {
    /// All roles, in ascending order.
    pub const ALL: [Self; 3] = [
        Self::Member,
        Self::ProjectAdministrator,
        Self::CloudAdministrator,
    ];

    /// The role of a user with a membership.
    pub fn new(cloud_administrator: bool, membership: membership::Role) -> Self {
        match (cloud_administrator, membership) {
            (true, _) => Self::CloudAdministrator,
            (false, membership::Role::Manager) => Self::ProjectAdministrator,
            (false, membership::Role::Member) => Self::Member,
        }
    }

    /// The role's name in tokens, as Keystone's default roles are named. Clients take `admin` for
    /// an administrator of the cloud.
    pub fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::ProjectAdministrator => "manager",
            Self::CloudAdministrator => "admin",
        }
    }

    /// The role's name in refusals.
    fn title(self) -> &'static str {
        match self {
            Self::Member => "members of the project",
            Self::ProjectAdministrator => "administrators of the project",
            Self::CloudAdministrator => "administrators of the cloud",
        }
    }

    /// The role and those that it includes, the highest first, as Keystone lists implied roles.
    pub fn implied(self) -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter().rev();
        all.filter(move |role| *role <= self)
    }

    /// The roles in the answer to a login: `[{"id": "member", "name": "member"}]`.
    pub fn described(self) -> Value {
        self.implied()
            .map(|role| json!({"id": role.name(), "name": role.name()}))
            .collect()
    }

    /// Returns whether the role has a privilege.
    pub fn has(self, privilege: Privilege) -> bool {
        self >= privilege.role()
    }

    /// Refuses a privilege that the role does not have.
    ///
    /// # Errors
    /// 403 naming the privilege and the roles that have it.
    pub fn require(self, privilege: Privilege) -> Result<(), Fault> {
        if self.has(privilege) {
            return Ok(());
        }
        Err(Fault::forbidden(format!(
            "{}: for {} only",
            privilege.text(),
            privilege.role().title()
        )))
    }
}

/// A permission beyond the role that an operation needs: it depends on the object, or on a field
/// of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// To look at and revoke tokens of other users, and to list their projects.
    TokensOfOthers,
    /// To see and use flavors that are not public.
    HiddenFlavors,
    /// To change and delete public networks and their subnets.
    PublicNetworks,
    /// To create networks of types that `network.types` does not name.
    AnyNetworkType,
    /// To make images public, and to change images of other projects.
    PublicImages,
    /// To register images whose source `images.sources` does not name, or that another project
    /// has registered as private.
    AnyImageSource,
    /// To change and delete images that other users of the project have registered.
    ImagesOfProject,
    /// To manage the memberships, and to read and set the limits, of other projects.
    OtherProjects,
    /// To look up users other than oneself, to make members of them.
    OtherUsers,
    /// To set limits of the project within the granted ones.
    LimitsOfProject,
    /// To grant limits to projects.
    GrantedLimits,
    /// To read what clusters say of failures, with names of nodes and paths.
    ClusterMessages,
}

impl Privilege {
    /// The least role with this privilege.
    pub const fn role(self) -> Role {
        match self {
            Self::ImagesOfProject | Self::OtherUsers | Self::LimitsOfProject => {
                Role::ProjectAdministrator
            }
            Self::TokensOfOthers
            | Self::HiddenFlavors
            | Self::PublicNetworks
            | Self::AnyNetworkType
            | Self::PublicImages
            | Self::AnyImageSource
            | Self::OtherProjects
            | Self::GrantedLimits
            | Self::ClusterMessages => Role::CloudAdministrator,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::TokensOfOthers => "tokens of other users",
            Self::HiddenFlavors => "flavors that are not public",
            Self::PublicNetworks => "changes of public networks",
            Self::AnyNetworkType => "networks of this type",
            Self::PublicImages => "public images and images of other projects",
            Self::AnyImageSource => "images from this source",
            Self::ImagesOfProject => "images that other users have registered",
            Self::OtherProjects => "other projects",
            Self::OtherUsers => "other users",
            Self::LimitsOfProject => "limits of the project",
            Self::GrantedLimits => "limits above those that the project was granted",
            Self::ClusterMessages => "the messages of the clusters",
        }
    }
}

/// The purpose that a server is looked up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To show it.
    Show,
    /// To change it or something attached to it, or to hand out access to it.
    Operate,
}

/// Refuses every purpose but [`Purpose::Show`] for a suspended server.
///
/// # Errors
/// 403.
pub fn permit_server(server: &server::Model, purpose: Purpose) -> Result<(), Fault> {
    match purpose {
        Purpose::Operate if server.suspended => Err(Fault::forbidden(
            "the server is suspended by its administrator",
        )),
        Purpose::Show | Purpose::Operate => Ok(()),
    }
}

/// The mounts that serve the operations of another one.
const ALIASES: [(&str, &str); 5] = [
    ("/compute/v1.1", "/compute/v2.0"),
    ("/volume/v2.0", "/volume/v3"),
    ("/volume/v2", "/volume/v3"),
    ("/image/v1.0", "/image/v1.0"),
    ("/image/v1", "/image/v1.0"),
];

/// The operations that the OpenAPI document leaves out.
const UNDOCUMENTED: [(&str, &str, Role); 7] = [
    ("post", "/account/v1.0/user_catalogs", Role::Member),
    ("get", "/account/v1.0/quotas", Role::Member),
    ("get", "/account/v1.0/projects", Role::Member),
    ("get", "/account/v1.0/resources", Role::Member),
    ("get", "/account/v1.0/authenticate", Role::Member),
    ("post", "/account/v1.0/authenticate", Role::Member),
    ("get", "/image/v1.0", Role::Member),
];

/// A route without the names of its parameters: `/servers/{}`.
fn shape(path: &str) -> String {
    let part = |part: &str| match part.starts_with('{') {
        true => "{}".to_owned(),
        false => part.to_owned(),
    };
    let parts: Vec<String> = path.trim_end_matches('/').split('/').map(part).collect();
    parts.join("/")
}

/// The role that each operation with a token needs, by method and shape.
static NEEDED: LazyLock<HashMap<(String, String), Role>> = LazyLock::new(|| {
    let documented = operations::OPERATIONS
        .iter()
        .filter(|operation| !operation.open)
        .map(|operation| (operation.method, operation.path, operation.role));
    let entry = |(method, path, role): (&str, &str, Role)| {
        ((method.to_ascii_uppercase(), shape(path)), role)
    };
    documented.chain(UNDOCUMENTED).map(entry).collect()
});

/// The role that an operation needs; none: no table names the operation.
fn needed(method: &Method, route: &str) -> Option<Role> {
    let route = route
        .strip_prefix(Dialect::Cyclades.prefix())
        .unwrap_or(route);
    let alias = ALIASES.iter().find_map(|(alias, path)| {
        let rest = route.strip_prefix(alias)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{path}{rest}"))
    });
    let shape = shape(alias.as_deref().unwrap_or(route));
    let find = |method: &str| NEEDED.get(&(method.to_owned(), shape.clone())).copied();
    // The routes of GET serve HEAD as well.
    find(method.as_str()).or_else(|| match *method == Method::HEAD {
        true => find("GET"),
        false => None,
    })
}

/// Refuses an operation that the role does not permit; `route` is the path with the names of its
/// parameters.
///
/// # Errors
/// 403; 500: no table names the operation.
pub fn permit(role: Role, method: &Method, route: &str) -> Result<(), Fault> {
    let needed = needed(method, route)
        .ok_or_else(|| Fault::internal(format!("{method} {route}: an operation without a role")))?;
    if role >= needed {
        return Ok(());
    }
    Err(Fault::forbidden(format!(
        "this operation is for {} only",
        needed.title()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fault::Kind;

    #[test]
    fn each_role_includes_those_below_it() {
        let names = |role: Role| role.implied().map(Role::name).collect::<Vec<_>>();
        assert_eq!(names(Role::Member), ["member"]);
        assert_eq!(names(Role::ProjectAdministrator), ["manager", "member"]);
        assert_eq!(
            names(Role::CloudAdministrator),
            ["admin", "manager", "member"]
        );
    }

    #[test]
    fn a_membership_makes_no_administrator_of_the_cloud() {
        for membership in [membership::Role::Member, membership::Role::Manager] {
            assert!(Role::new(false, membership) < Role::CloudAdministrator);
            assert_eq!(Role::new(true, membership), Role::CloudAdministrator);
        }
    }

    #[test]
    fn every_mount_needs_the_same_role() {
        for route in [
            "/compute/v2.0/os-hypervisors/{id}",
            "/compute/v1.1/os-hypervisors/{name}",
            "/cyclades/compute/v2.0/os-hypervisors/{id}",
        ] {
            let role = Some(Role::CloudAdministrator);
            assert_eq!(needed(&Method::GET, route), role, "{route}");
            assert_eq!(needed(&Method::HEAD, route), role, "{route}");
            assert_eq!(needed(&Method::PUT, route), None, "{route}");
            assert!(permit(Role::ProjectAdministrator, &Method::GET, route).is_err());
            assert!(permit(Role::CloudAdministrator, &Method::GET, route).is_ok());
        }
        assert_eq!(
            needed(&Method::GET, "/image/v1/images/{id}"),
            Some(Role::Member)
        );
        assert_eq!(needed(&Method::GET, "/volume/v2"), None);
    }

    #[test]
    fn an_operation_without_a_role_is_refused() {
        let fault = permit(Role::CloudAdministrator, &Method::GET, "/new").unwrap_err();
        assert_eq!(fault.kind, Kind::Internal);
    }
}
