//! Passwords under attack: parallel guesses, floods, long names, somebody else's wrong passwords.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use support::program::Program;
use support::rapi::FakeRapi;
use support::{Central, TOKEN};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The free wrong passwords of one user from one address.
const FREE: usize = 10;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A client with an address of its own.
fn client(address: IpAddr) -> Client {
    Client::builder().local_address(address).build().unwrap()
}

fn credentials(user: &str, password: &str) -> Value {
    json!({"auth": {"passwordCredentials": {"username": user, "password": password}}})
}

async fn log_in(client: &Client, base: &str, user: &str, password: &str) -> Response {
    client
        .post(format!("{base}/identity/v2.0/tokens"))
        .json(&credentials(user, password))
        .send()
        .await
        .unwrap()
}

/// Returns the statuses of so many logins at once.
async fn at_once(central: &Central, count: usize, user: &str, password: &str) -> Vec<u16> {
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..count {
        let client = client(HERE);
        let (base, user, password) = (central.base.clone(), user.to_owned(), password.to_owned());
        logins.spawn(async move {
            let answer = log_in(&client, &base, &user, &password).await;
            if answer.status() == 429 {
                let wait = answer.headers()["retry-after"].to_str().unwrap();
                assert!(wait.parse::<u64>().unwrap() >= 1, "{wait}");
            }
            answer.status().as_u16()
        });
    }
    logins.join_all().await
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|known| **known == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_at_once_are_looked_at_up_to_the_limit() {
    let central = Central::start().await;
    let start = Instant::now();
    let statuses = at_once(&central, 60, "alice", "wrong").await;
    // One comes back every six seconds.
    let free = FREE + usize::try_from(start.elapsed().as_secs() / 6).unwrap();
    assert!(count(&statuses, 401) <= free, "{statuses:?}");
    assert_eq!(
        count(&statuses, 401) + count(&statuses, 429),
        60,
        "{statuses:?}"
    );
    assert!(count(&statuses, 401) > 0, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn right_passwords_at_once_are_all_let_in() {
    let central = Central::start().await;
    let statuses = at_once(&central, 60, "alice", "rabbit").await;
    assert_eq!(count(&statuses, 200), 60, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_an_id_of_one_user_count_together() {
    let central = Central::start().await;
    let here = client(HERE);
    let answer = log_in(&here, &central.base, "alice", "rabbit").await;
    let body: Value = answer.json().await.unwrap();
    let id = body["access"]["user"]["id"].as_str().unwrap();
    let elsewhere = client(ELSEWHERE);
    let mut statuses = Vec::new();
    let start = Instant::now();
    for turn in 0..2 * FREE {
        let name = if turn % 2 == 0 { "alice" } else { id };
        let answer = log_in(&elsewhere, &central.base, name, "wrong").await;
        statuses.push(answer.status().as_u16());
    }
    // One comes back every six seconds.
    let free = FREE + usize::try_from(start.elapsed().as_secs() / 6).unwrap();
    assert!(count(&statuses, 401) <= free, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_kept_out_by_the_wrong_passwords_of_another_address() {
    let central = Central::start().await;
    let elsewhere = client(ELSEWHERE);
    let statuses: Vec<u16> = {
        let mut statuses = Vec::new();
        for _ in 0..FREE + 5 {
            let answer = log_in(&elsewhere, &central.base, "alice", "wrong").await;
            statuses.push(answer.status().as_u16());
        }
        statuses
    };
    assert!(count(&statuses, 429) > 0, "{statuses:?}");
    // Not even the right one is looked at from there.
    let answer = log_in(&elsewhere, &central.base, "alice", "rabbit").await;
    assert_eq!(answer.status(), 429);
    let answer = log_in(&client(HERE), &central.base, "alice", "rabbit").await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_kept_out_of_an_address_that_the_right_password_came_from() {
    let central = Central::start().await;
    let here = client(HERE);
    let answer = log_in(&here, &central.base, "alice", "rabbit").await;
    assert_eq!(answer.status(), 200);
    let start = Instant::now();
    let mut statuses = at_once(&central, 40, "alice", "wrong").await;
    // One comes back every six seconds.
    let free = FREE + usize::try_from(start.elapsed().as_secs() / 6).unwrap();
    assert!(count(&statuses, 401) <= free, "{statuses:?}");
    // Somebody goes on with a wrong one every 1.5 s.
    let start = Instant::now();
    let mut let_in = 0;
    while start.elapsed() < Duration::from_secs(6) {
        let wrong = log_in(&here, &central.base, "alice", "wrong").await;
        statuses.push(wrong.status().as_u16());
        let right = log_in(&here, &central.base, "alice", "rabbit").await;
        let_in += usize::from(right.status() == 200);
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    assert!(let_in >= 2, "let in {let_in} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_addresses_together_are_slowed_and_a_known_one_is_not() {
    let central = Central::start().await;
    let here = client(HERE);
    assert_eq!(
        log_in(&here, &central.base, "alice", "rabbit")
            .await
            .status(),
        200
    );
    let start = Instant::now();
    let mut statuses = Vec::new();
    for last in 10..40 {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let client = client(address);
        for _ in 0..5 {
            let answer = log_in(&client, &central.base, "alice", "wrong").await;
            statuses.push(answer.status().as_u16());
        }
    }
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
    assert!(count(&statuses, 401) <= 101 + seconds, "{statuses:?}");
    assert!(
        count(&statuses, 429) > 0 || seconds > 40,
        "{statuses:?} in {seconds} s"
    );
    assert_eq!(
        log_in(&here, &central.base, "alice", "rabbit")
            .await
            .status(),
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_place_of_a_password_is_not_counted() {
    let central = Central::start().await;
    at_once(&central, 20, "alice", "wrong").await;
    let answer = log_in(&client(HERE), &central.base, "alice", TOKEN).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_and_passwords_are_refused_before_anything() {
    let central = Central::start().await;
    let long = "x".repeat(256);
    let v3 = |user: Value, password: &str| {
        json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {
            "name": user, "password": password, "domain": {"id": "default"}}}}}})
    };
    for (path, body, field) in [
        ("/identity/v2.0/tokens", credentials(&long, "p"), "username"),
        (
            "/identity/v2.0/tokens",
            credentials("alice", &long),
            "password",
        ),
        ("/identity/v3/auth/tokens", v3(json!(long), "p"), "name"),
        (
            "/identity/v3/auth/tokens",
            v3(json!("alice"), &long),
            "password",
        ),
    ] {
        let answer = central.ask(Method::POST, path, None, Some(body)).await;
        let message = answer.fault(400, "badRequest");
        assert!(message.contains(field), "{message}");
        assert!(message.contains("255 bytes"), "{message}");
        assert!(!message.contains("xxxx"), "{message}");
    }
    // A refusal for its length counts as no attempt.
    for _ in 0..2 * FREE {
        let body = credentials("alice", &long);
        let path = "/identity/v2.0/tokens";
        central
            .ask(Method::POST, path, None, Some(body))
            .await
            .expect(400);
    }
    // 255 bytes are looked at; so are bodies that are much longer than any login refused.
    let answer = log_in(&client(HERE), &central.base, &"é".repeat(127), "p").await;
    assert_eq!(answer.status(), 401);
    let answer = log_in(&client(HERE), &central.base, &"x".repeat(400_000), "p").await;
    assert!([400, 413].contains(&answer.status().as_u16()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_does_not_exist_takes_as_long_and_is_told_the_same() {
    let central = Central::start().await;
    let mut medians = Vec::new();
    let mut told = Vec::new();
    for (index, name) in ["alice", "nobody"].into_iter().enumerate() {
        let mut times = Vec::new();
        for turn in 0..9 {
            let last = u8::try_from(100 + 10 * index + turn).unwrap();
            let client = client(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
            let start = Instant::now();
            let answer = log_in(&client, &central.base, name, "wrong").await;
            times.push(start.elapsed());
            assert_eq!(answer.status(), 401);
            told.push(answer.text().await.unwrap());
        }
        times.sort();
        medians.push(times[4]);
    }
    assert!(told.iter().all(|text| *text == told[0]), "{told:?}");
    let ratio = medians[0].as_secs_f64() / medians[1].as_secs_f64();
    assert!((0.5..2.0).contains(&ratio), "{medians:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
    async fn statuses(central: &Central) -> Vec<u16> {
        let client = client(HERE);
        let mut statuses = Vec::new();
        for turn in 0..FREE + 4 {
            let answer = client
                .post(format!("{}/identity/v2.0/tokens", central.base))
                // The left end is the client's own claim.
                .header("X-Forwarded-For", format!("10.9.9.9, 198.51.100.{turn}"))
                .json(&credentials("alice", "wrong"))
                .send()
                .await
                .unwrap();
            statuses.push(answer.status().as_u16());
        }
        statuses
    }
    let central = Central::start().await;
    assert!(count(&statuses(&central).await, 429) > 0);
    let rapi = FakeRapi::start().await;
    let central = Central::with_api(rapi, "trusted_proxies = ['127.0.0.0/8']").await;
    let statuses = statuses(&central).await;
    assert_eq!(count(&statuses, 401), FREE + 4, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_logins_takes_neither_memory_nor_the_time_of_others() {
    let mut central = Central::start().await;
    central.stop().await;
    let program = Program::start(central.folder.path(), "", "", 4096).await;
    let idle = program.memory("VmRSS");
    let mut logins = tokio::task::JoinSet::new();
    for number in 0..200 {
        let address = program.address();
        logins.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let body = credentials(&format!("nobody-{number}"), "wrong").to_string();
            let request = format!(
                "POST /identity/v2.0/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            answer.get(9..12).unwrap_or("none").to_owned()
        });
    }
    let mut times = Vec::new();
    let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
    let client = Client::new();
    while !logins.is_empty() {
        let start = Instant::now();
        let answer = client
            .get(format!("{}/compute/v2.0/servers", program.base()))
            .header("X-Auth-Token", TOKEN)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        times.push(start.elapsed());
        while let Some(status) = logins.try_join_next() {
            *statuses.entry(status.unwrap()).or_default() += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    times.sort();
    let (usual, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    let most = program.memory("VmHWM");
    println!(
        "RSS idle {idle} KiB, most {most} KiB; {} GETs: median {usual:?}, slowest {slowest:?}; {statuses:?}",
        times.len()
    );
    assert!(most < 200 * 1024, "{most} KiB");
    // The slowest may be a matter of what else the machine does.
    assert!(usual < Duration::from_secs(1), "{times:?}");
}
