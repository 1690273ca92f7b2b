//! The bodies of AMQP messages: what can be read is written, and read back to the same bytes.

use agents::message::Message;

pub fn run(data: &[u8]) {
    let Ok(message) = Message::parse(data) else {
        return;
    };
    let _ = message.routing_key();
    let body = message.to_body();
    let again = Message::parse(&body).expect("our own message");
    assert_eq!(body, again.to_body());
}
