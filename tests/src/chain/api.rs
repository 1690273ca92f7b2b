//! The API as a person with `curl` uses it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::netns::Netns;
use crate::process;

/// A client of the central API, with a token once it has logged in.
#[derive(Clone, Debug)]
pub struct Api {
    netns: Netns,
    base: String,
    token: Option<String>,
}

impl Api {
    /// A client in `netns` of the API at `base` (`http://address:port`).
    pub fn new(netns: &Netns, base: &str) -> Self {
        Self {
            netns: netns.clone(),
            base: base.to_owned(),
            token: None,
        }
    }

    /// Gets a token for a user's project by Keystone v2.
    ///
    /// # Errors
    /// It is refused.
    pub fn log_in(&mut self, user: &str, password: &str, project: &str) -> Result<()> {
        let body = json!({"auth": {
            "passwordCredentials": {"username": user, "password": password},
            "tenantName": project,
        }});
        let answer = self.expect("POST", "/identity/v2.0/tokens", Some(&body), 200)?;
        let token = answer["access"]["token"]["id"]
            .as_str()
            .context("no token in the answer")?;
        self.token = Some(token.to_owned());
        Ok(())
    }

    /// The token in use.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// One request; its status and its JSON (null if it had none).
    ///
    /// # Errors
    /// No answer in time, or a body that is not JSON.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let (status, body) = self.exchange(method, path, body)?;
        if body.trim().is_empty() {
            return Ok((status, Value::Null));
        }
        let value = serde_json::from_str(&body)
            .with_context(|| format!("{method} {path}: {status}: not JSON: {body}"))?;
        Ok((status, value))
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let mut curl = self.netns.command("curl");
        curl.args([
            "-sS",
            "--max-time",
            "20",
            "-X",
            method,
            "-w",
            "\n%{http_code}",
        ]);
        curl.args(["-H", "Content-Type: application/json"]);
        if let Some(token) = &self.token {
            curl.args(["-H", &format!("X-Auth-Token: {token}")]);
        }
        if let Some(body) = body {
            curl.args(["--data", &body.to_string()]);
        }
        curl.arg(format!("{}{path}", self.base));
        let text = process::check(&mut curl, Duration::from_secs(30))?;
        let (body, status) = text.rsplit_once('\n').context("no status from curl")?;
        let status = status
            .parse()
            .with_context(|| format!("status {status:?}"))?;
        Ok((status, body.to_owned()))
    }

    /// Fails unless the API says that it is ready to serve.
    ///
    /// # Errors
    /// It is not, or does not answer; the text has what it said.
    pub fn ready(&self) -> Result<()> {
        let (status, body) = self.exchange("GET", "/readyz", None)?;
        ensure!(status == 200, "/readyz: {status}: {body}");
        Ok(())
    }

    /// One request that must be answered with `status`.
    ///
    /// # Errors
    /// Another status; the text has the answer.
    pub fn expect(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        status: u16,
    ) -> Result<Value> {
        let (got, answer) = self.request(method, path, body)?;
        ensure!(
            got == status,
            "{method} {path}: {got} instead of {status}: {answer}"
        );
        Ok(answer)
    }

    /// The id of the flavor, image or network of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn id_by_name(&self, path: &str, collection: &str, name: &str) -> Result<String> {
        let answer = self.expect("GET", path, None, 200)?;
        let rows = answer[collection]
            .as_array()
            .with_context(|| format!("no {collection}"))?;
        let row = rows.iter().find(|row| row["name"] == name);
        match row.map(|row| &row["id"]) {
            Some(Value::String(id)) => Ok(id.clone()),
            Some(Value::Number(id)) => Ok(id.to_string()),
            _ => bail!("{path} has no {name:?}: {answer}"),
        }
    }

    /// A server as the API shows it.
    ///
    /// # Errors
    /// It is not shown.
    pub fn server(&self, id: &str) -> Result<Value> {
        let path = format!("/compute/v2.0/servers/{id}");
        Ok(self.expect("GET", &path, None, 200)?["server"].clone())
    }

    /// Creates a server on one network; its id.
    ///
    /// # Errors
    /// It is refused, or a name is unknown.
    pub fn create(&self, name: &str, flavor: &str, image: &str, network: &str) -> Result<String> {
        let flavor = self.id_by_name("/compute/v2.0/flavors", "flavors", flavor)?;
        let image = self.id_by_name("/compute/v2.0/images", "images", image)?;
        let network = self.id_by_name("/network/v2.0/networks", "networks", network)?;
        let body = json!({"server": {
            "name": name, "flavorRef": flavor, "imageRef": image,
            "networks": [{"uuid": network}],
        }});
        let answer = self.expect("POST", "/compute/v2.0/servers", Some(&body), 202)?;
        let server = &answer["server"];
        ensure!(
            server["status"] == "BUILD",
            "a new server is not in BUILD: {server}"
        );
        match &server["id"] {
            Value::String(id) => Ok(id.clone()),
            Value::Number(id) => Ok(id.to_string()),
            other => bail!("a server without an id: {other}"),
        }
    }

    /// An action on a server, without arguments.
    ///
    /// # Errors
    /// It is refused.
    pub fn action(&self, id: &str, action: &Value) -> Result<()> {
        let path = format!("/compute/v2.0/servers/{id}/action");
        self.expect("POST", &path, Some(action), 202).map(drop)
    }
}

/// A server's addresses of one IP version, as the API shows them.
pub fn addresses(server: &Value, version: u64) -> Vec<String> {
    let networks = server["addresses"]
        .as_object()
        .into_iter()
        .flat_map(|map| map.values());
    networks
        .flat_map(|list| list.as_array().into_iter().flatten())
        .filter(|address| address["version"] == version)
        .filter_map(|address| address["addr"].as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_picked_by_version() {
        let server = json!({"addresses": {"1": [
            {"version": 4, "addr": "192.0.2.7"}, {"version": 6, "addr": "2001:db8::7"}
        ]}});
        assert_eq!(addresses(&server, 4), ["192.0.2.7"]);
        assert_eq!(addresses(&server, 6), ["2001:db8::7"]);
        assert!(addresses(&json!({}), 4).is_empty());
    }
}
