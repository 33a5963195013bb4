//! Any bytes as a trace file of any format; what is read is written in every form, and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tailspan_core::{
    files::{
        Format, read_within,
        send::requests,
        write::{Form, Writer},
    },
    limits::Limits,
};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let formats = [Format::JaegerJson, Format::OtlpJson, Format::OtlpProtobuf];
    for format in formats.into_iter().map(Some).chain([None]) {
        for trace in read_within("file", bytes, format, &limits).unwrap_or_default() {
            assert!(!trace.items.is_empty());
            let sent: usize = requests(&trace).map(|request| request.items).sum();
            assert_eq!(sent, trace.items.len());
            for form in [Form::Otlp, Form::Jsonl, Form::Jaeger] {
                let mut writer = Writer::new(form, &trace.trace_id);
                let mut text = String::new();
                loop {
                    trace
                        .recorded()
                        .for_each(|event| writer.push(&event, &mut text));
                    if !writer.end_pass(&mut text) {
                        break;
                    }
                }
                assert!(
                    text.is_empty()
                        || text.lines().all(|line| serde_json::from_str::<
                            &serde_json::value::RawValue,
                        >(line)
                        .is_ok())
                );
            }
        }
    }
});
