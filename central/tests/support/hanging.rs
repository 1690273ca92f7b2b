//! What hangs on a server comes as one text of each kind: with as much as there may be of it, it
//! must be as long as that.

use serde_json::{Map, Value, json};

use super::{Central, until};

/// Hangs as many metadata and labels on a server as it may have, and looks at it.
pub async fn as_much_as_there_may_be_is_shown(central: &Central) {
    central.rapi.succeed();
    let id = central.create("much", &["bridged", "routed"]).await;
    let path = format!("/compute/v2.0/servers/{id}");
    until("it to be there", async || {
        let server = central.server(&id).await;
        server["status"] == "ACTIVE" && server["SNF:task_state"] == ""
    })
    .await;
    let mut metadata = Map::new();
    for number in 0..128 {
        let value = "\"\\\n€🦀'".chars().cycle().take(4096);
        let (name, value) = (format!("'{number} \\\""), value.collect::<String>());
        let body = json!({"metadata": {name.as_str(): value}});
        let metadata_path = format!("{path}/metadata");
        central.post(&metadata_path, body).await.expect(200);
        metadata.insert(name, value.into());
    }
    let labels: Vec<String> = (10..60).map(|number| format!("label-{number}")).collect();
    let body = json!({"tags": labels});
    let answer = central.put(&format!("{path}/tags"), body).await;
    assert!(answer.status.is_success(), "{answer:?}");
    let list = central
        .get("/compute/v2.0/servers/detail")
        .await
        .expect(200);
    for server in [central.server(&id).await, list["servers"][0].clone()] {
        assert_eq!(server["metadata"], Value::from(metadata.clone()));
        assert_eq!(server["tags"], json!(labels));
        assert_eq!(server["addresses"].as_object().unwrap().len(), 2);
        assert_eq!(server["volumes"].as_array().unwrap().len(), 1);
    }
}
