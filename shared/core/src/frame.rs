//! Server-sent events as bytes on the wire (HTML Living Standard, 9.2).

use std::fmt::Write as _;

use crate::cursor::Cursor;

/// One data frame: unnamed, so `onmessage` gets it; `json` is one line (serde_json writes no line breaks).
pub fn data(into: &mut String, cursor: Cursor, json: &str) {
    // Writing into a string cannot fail.
    let _ = write!(into, "id: {cursor}\ndata: {json}\n\n");
}

/// A control frame. `cursor` keeps a reconnecting viewer's position fresh.
pub fn control(name: &str, cursor: Option<Cursor>, json: &str) -> String {
    let mut frame = String::new();
    if let Some(cursor) = cursor {
        let _ = writeln!(frame, "id: {cursor}");
    }
    let _ = write!(frame, "event: {name}\ndata: {json}\n\n");
    frame
}

/// A frame of data that is no event, for readers who do not look at names.
pub fn unnamed(cursor: Option<Cursor>, data: &str) -> String {
    match cursor {
        Some(cursor) => format!("id: {cursor}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// The first thing on a stream: how long a client waits before it comes back, and a comment, so that proxies pass on the head at once.
pub fn opening(retry_ms: u64) -> String {
    format!("retry: {retry_ms}\n: tailspan\n\n")
}

/// Keeps the connection and the viewer's cursor fresh; without `data` no client sees an event.
pub fn heartbeat(cursor: Option<Cursor>) -> String {
    match cursor {
        Some(cursor) => format!(": heartbeat\nid: {cursor}\n\n"),
        None => ": heartbeat\n\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cursor::MAX_SEQ;

    proptest! {
        /// A frame of any event parses back as the HTML standard says: one id, one data line, the same JSON.
        #[test]
        fn a_framed_event_parses_back(seq in 0..=MAX_SEQ, mark: u32, text in any::<String>(), key in any::<String>()) {
            let event = serde_json::json!({"seq": seq, key: text});
            let mut frame = String::new();
            data(&mut frame, Cursor::new(seq, mark), &event.to_string());
            let body = frame.strip_suffix("\n\n").expect("ends with a blank line");
            // The standard ends a line at any of CR LF, CR and LF.
            let lines: Vec<&str> = body.split(['\n', '\r']).collect();
            let [id, data] = lines[..] else { panic!("{frame:?}") };
            prop_assert_eq!(id.strip_prefix("id: ").expect("an id").parse(), Ok(Cursor::new(seq, mark)));
            let json: serde_json::Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("json");
            prop_assert_eq!(json, event);
        }
    }

    #[test]
    fn frames_on_the_wire() {
        let mut text = opening(1000);
        data(&mut text, Cursor::new(3, 9), "{\"seq\":3}");
        text.push_str(&heartbeat(Some(Cursor::new(3, 9))));
        text.push_str(&control(
            "end",
            Some(Cursor::new(3, 9)),
            "{\"status\":\"completed\"}",
        ));
        assert_eq!(
            text,
            "retry: 1000\n: tailspan\n\nid: 3-9\ndata: {\"seq\":3}\n\n: heartbeat\nid: 3-9\n\nid: 3-9\nevent: end\ndata: {\"status\":\"completed\"}\n\n"
        );
    }
}
