//! The ends of tokens: with their project, their parent, their password, their time and number.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use reqwest::{Method, StatusCode};
use sea_orm::{ConnectionTrait, Database, Statement};
use serde_json::{Value, json};
use support::program::done;
use support::rapi::FakeRapi;
use support::{Central, TOKEN, until};

const V2: &str = "/identity/v2.0/tokens";
const V3: &str = "/identity/v3/auth/tokens";
const SERVERS: &str = "/compute/v2.0/servers";

/// A token, and when it expires.
#[derive(Debug, Clone)]
struct Given {
    text: String,
    expires: String,
}

async fn v2(central: &Central, auth: Value) -> Given {
    let body = json!({ "auth": auth });
    let body = central
        .ask(Method::POST, V2, None, Some(body))
        .await
        .expect(200);
    let token = &body["access"]["token"];
    Given {
        text: token["id"].as_str().unwrap().to_owned(),
        expires: token["expires"].as_str().unwrap().to_owned(),
    }
}

async fn by_password(central: &Central, user: &str, password: &str) -> Given {
    let credentials = json!({"username": user, "password": password});
    v2(central, json!({"passwordCredentials": credentials})).await
}

/// A token that a token was shown for, and the status.
async fn by_token(central: &Central, token: &str) -> Result<Given, StatusCode> {
    let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}});
    let answer = central.ask(Method::POST, V3, None, Some(body)).await;
    if answer.status != StatusCode::CREATED {
        return Err(answer.status);
    }
    Ok(Given {
        text: answer.headers["x-subject-token"]
            .to_str()
            .unwrap()
            .to_owned(),
        expires: answer.body["token"]["expires_at"]
            .as_str()
            .unwrap()
            .to_owned(),
    })
}

async fn status(central: &Central, token: &str) -> u16 {
    let answer = central.ask(Method::GET, SERVERS, Some(token), None).await;
    answer.status.as_u16()
}

async fn is_good(central: &Central, token: &str) -> bool {
    match status(central, token).await {
        200 => true,
        401 => false,
        other => panic!("status {other}"),
    }
}

async fn ends(central: &Central, token: &str) {
    until("the token to end", async || !is_good(central, token).await).await;
}

async fn number(central: &Central, query: &str) -> i64 {
    let database = Database::connect(&central.config.database_url)
        .await
        .unwrap();
    let statement = Statement::from_string(database.get_database_backend(), query.to_owned());
    let row = database.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

fn shell(central: &Central, arguments: &[&str], input: &str) -> String {
    done(central.folder.path(), arguments, input)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_disabled_project_end_and_come_back_with_it() {
    let central = Central::start().await;
    let login = by_password(&central, "alice", "rabbit").await;
    shell(&central, &["project", "disable", "wonderland"], "");
    for token in [login.text.as_str(), TOKEN] {
        ends(&central, token).await;
    }
    assert_eq!(by_token(&central, TOKEN).await.unwrap_err(), 401);
    shell(&central, &["project", "enable", "wonderland"], "");
    until("the project", async || is_good(&central, TOKEN).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_token_was_shown_for_keeps_the_first_expiry() {
    let central = Central::start().await;
    let first = by_password(&central, "alice", "rabbit").await;
    let mut token = first.clone();
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        token = by_token(&central, &token.text).await.unwrap();
        assert_eq!(token.expires[..19], first.expires[..19]);
    }
    // For another project, in version 2, too; and with the token as a password.
    shell(&central, &["project", "join", "elsewhere", "alice"], "");
    let other = json!({"token": {"id": token.text}, "tenantName": "elsewhere"});
    let other = v2(&central, other).await;
    assert_ne!(other.text, token.text);
    assert_eq!(other.expires[..19], first.expires[..19]);
    let disguised = json!({"tenantName": "elsewhere", "passwordCredentials":
        {"username": "alice", "password": token.text}});
    let disguised = v2(&central, disguised).await;
    assert_eq!(disguised.expires[..19], first.expires[..19]);
    // What a token without an end gives has one.
    let child = by_token(&central, TOKEN).await.unwrap();
    assert!(child.expires.as_str() < "9999", "{child:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_with_the_one_that_was_shown_for_it() {
    let central = Central::start().await;
    let root = by_password(&central, "alice", "rabbit").await;
    let mut chain = vec![root.clone()];
    for _ in 0..20 {
        let parent = &chain[chain.len() - 1].text;
        chain.push(by_token(&central, parent).await.unwrap());
    }
    let sibling = by_token(&central, &root.text).await.unwrap();
    let another = by_password(&central, "alice", "rabbit").await;
    // In the middle: what is before it stays, as does what is beside it.
    let path = format!("{V2}/{}", chain[1].text);
    central.delete(&path).await.expect(204);
    for token in &chain[1..] {
        assert!(!is_good(&central, &token.text).await);
    }
    for token in [&root, &sibling, &another] {
        assert!(is_good(&central, &token.text).await);
    }
    assert_eq!(by_token(&central, &chain[3].text).await.unwrap_err(), 401);
    central
        .ask(
            Method::DELETE,
            &format!("{V2}/{}", root.text),
            Some(&root.text),
            None,
        )
        .await
        .expect(204);
    assert!(!is_good(&central, &sibling.text).await);
    assert!(is_good(&central, &another.text).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_given_while_its_parent_is_revoked_ends_as_well() {
    let central = Central::start().await;
    for _ in 0..8 {
        let root = by_password(&central, "alice", "rabbit").await;
        let path = format!("{V2}/{}", root.text);
        let (one, two, three, _) = tokio::join!(
            by_token(&central, &root.text),
            by_token(&central, &root.text),
            by_token(&central, &root.text),
            central.delete(&path),
        );
        for child in [one, two, three].into_iter().flatten() {
            assert!(!is_good(&central, &child.text).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_what_the_old_one_gave() {
    let central = Central::start().await;
    let login = by_password(&central, "alice", "rabbit").await;
    let child = by_token(&central, &login.text).await.unwrap();
    let of_static = by_token(&central, TOKEN).await.unwrap();
    let of_bob = by_password(&central, "bob", "builder").await;
    let said = shell(&central, &["user", "password", "alice"], "queen\n");
    assert!(said.contains("3 tokens"), "{said}");
    for token in [&login, &child, &of_static] {
        ends(&central, &token.text).await;
    }
    // An operator's own token is a credential beside the password: `token revoke` ends it.
    assert!(is_good(&central, TOKEN).await);
    assert!(is_good(&central, &of_bob.text).await);
    let login = by_password(&central, "alice", "queen").await;
    assert!(is_good(&central, &login.text).await);
    // By a seed, as well.
    let seed = central.folder.path().join("again.toml");
    std::fs::write(
        &seed,
        "[[user]]\nname = 'alice'\npassword = 'knave'\nprojects = ['wonderland']\n",
    )
    .unwrap();
    central::admin::seed::run(&central.config, &seed)
        .await
        .unwrap();
    ends(&central, &login.text).await;
    // The same password once more is no new one.
    let login = by_password(&central, "alice", "knave").await;
    central::admin::seed::run(&central.config, &seed)
        .await
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(is_good(&central, &login.text).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_too_long_to_log_in_with_is_not_set() {
    let central = Central::start().await;
    let long = "x".repeat(256);
    let output = support::program::shell(
        central.folder.path(),
        &["user", "password", "alice"],
        &format!("{long}\n"),
    );
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("255 bytes"), "{said}");
    by_password(&central, "alice", "rabbit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_tokens_are_purged() {
    let mut central = Central::start().await;
    by_password(&central, "alice", "rabbit").await;
    let database = Database::connect(&central.config.database_url)
        .await
        .unwrap();
    database
        .execute_unprepared(
            "UPDATE tokens SET expires_at = 1 WHERE expires_at < 200000000000000000",
        )
        .await
        .unwrap();
    let expired = "SELECT COUNT(*) FROM tokens WHERE expires_at = 1";
    assert_eq!(number(&central, expired).await, 1);
    central.stop().await;
    let central = Central::again(central).await;
    until("the purge", async || number(&central, expired).await == 0).await;
    assert!(is_good(&central, TOKEN).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_a_bounded_number_of_tokens() {
    let rapi = FakeRapi::start().await;
    let central = Central::with(rapi, "[tokens]\nper_user = 5\n").await;
    let mut tokens = Vec::new();
    for _ in 0..8 {
        tokens.push(by_password(&central, "alice", "rabbit").await);
    }
    let rows = "SELECT COUNT(*) FROM tokens WHERE user_id = (SELECT id FROM users \
                WHERE name = 'alice') AND expires_at < 200000000000000000";
    assert!(number(&central, rows).await <= 5);
    // The oldest went; the newest, and the operator's own, are there.
    assert!(!is_good(&central, &tokens[0].text).await);
    assert!(is_good(&central, &tokens[7].text).await);
    assert!(is_good(&central, TOKEN).await);
    // Who has one token cannot end it by asking for more.
    let root = by_password(&central, "alice", "rabbit").await;
    for _ in 0..20 {
        let child = by_token(&central, &root.text).await.unwrap();
        assert!(is_good(&central, &child.text).await);
        assert!(is_good(&central, &root.text).await);
    }
    assert!(number(&central, rows).await <= 5);
    // Nor by a chain: that is refused.
    let mut link = root.clone();
    let mut refused = None;
    for _ in 0..8 {
        match by_token(&central, &link.text).await {
            Ok(next) => link = next,
            Err(status) => {
                refused = Some(status);
                break;
            }
        }
    }
    assert_eq!(refused, Some(StatusCode::FORBIDDEN));
    assert!(is_good(&central, &root.text).await);
    assert!(number(&central, rows).await <= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_at_once_keep_to_the_number() {
    let rapi = FakeRapi::start().await;
    let central = Central::with(rapi, "[tokens]\nper_user = 5\n").await;
    let root = by_password(&central, "bob", "builder").await;
    let logins = (0..12).map(|_| by_token(&central, &root.text));
    let given = futures_util::future::join_all(logins).await;
    assert!(given.iter().all(Result::is_ok), "{given:?}");
    let rows = "SELECT COUNT(*) FROM tokens WHERE user_id = (SELECT id FROM users \
                WHERE name = 'bob') AND expires_at < 200000000000000000";
    assert!(number(&central, rows).await <= 5);
}
