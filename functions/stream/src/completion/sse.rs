//! Server-sent events as they arrive, in pieces of any size (HTML Living Standard, 9.2.6). Whoever reads bounds the bytes.

/// One event of an agent's stream that has data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    pub(super) name: Option<String>,
    /// Its data lines, joined by line feeds.
    pub(super) data: String,
}

impl SseEvent {
    /// The event on the wire again; ids and retry times are its producer's own affair.
    pub(super) fn frame(&self) -> String {
        let mut frame = String::with_capacity(self.data.len() + 16);
        if let Some(name) = &self.name {
            frame.push_str(&format!("event: {name}\n"));
        }
        for line in self.data.split('\n') {
            frame.push_str("data: ");
            frame.push_str(line);
            frame.push('\n');
        }
        frame.push('\n');
        frame
    }
}

/// Puts events together; every byte is looked at once.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    after_return: bool,
    name: Option<String>,
    data: Option<String>,
    begun: bool,
}

impl Parser {
    /// Takes in a piece; the events that it completes are added to `events`.
    pub(super) fn push(&mut self, mut bytes: &[u8], events: &mut Vec<SseEvent>) {
        while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(at);
            let belongs_to_return = self.after_return && line.is_empty() && rest.starts_with(b"\n");
            self.after_return = rest.starts_with(b"\r");
            bytes = rest.get(1..).unwrap_or_default();
            if belongs_to_return {
                continue;
            }
            self.line.extend_from_slice(line);
            let line = std::mem::take(&mut self.line);
            events.extend(self.end_line(&line));
        }
        self.after_return &= bytes.is_empty();
        self.line.extend_from_slice(bytes);
    }

    /// What is left at the end: the standard drops an event without the blank line after it, but servers forget that line.
    pub(super) fn finish(mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.end_line(&line);
        }
        self.end_line(b"")
    }

    fn end_line(&mut self, line: &[u8]) -> Option<SseEvent> {
        let line = match self.begun {
            false => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            true => line,
        };
        self.begun = true;
        if line.is_empty() {
            let name = self.name.take();
            return self.data.take().map(|data| SseEvent { name, data });
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" if !value.is_empty() => self.name = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, &mut events);
        }
        events.extend(parser.finish());
        let pairs = events.into_iter().map(|event| (event.name, event.data));
        pairs.collect()
    }

    #[test]
    fn events_come_out_the_same_however_they_are_cut() {
        let text = "\u{feff}: hello\r\ndata:{\"a\":1}\r\n\r\nid: 7\nevent: x\ndata: two\rdata:  lines \u{1f600}\r\rretry: 1\n\ndata\n\ndata: [DONE]";
        let expected = [
            (None, "{\"a\":1}".to_owned()),
            (Some("x".to_owned()), "two\n lines \u{1f600}".to_owned()),
            (None, String::new()),
            (None, "[DONE]".to_owned()),
        ];
        assert_eq!(read(&[text.as_bytes()]), expected);
        for at in 0..text.len() {
            let (one, other) = text.as_bytes().split_at(at);
            assert_eq!(read(&[one, other]), expected, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), expected);
    }

    #[test]
    fn an_event_goes_on_as_it_came() {
        let event = SseEvent {
            name: Some("x".to_owned()),
            data: "a\nb".to_owned(),
        };
        assert_eq!(event.frame(), "event: x\ndata: a\ndata: b\n\n");
    }
}
