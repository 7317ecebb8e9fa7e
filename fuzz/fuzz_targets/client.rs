//! Text frames of clients: what is read keeps its bounds, and is passed on as the same object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::internals::{ClientFrame, MAX_TASK_ID_BYTES};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match ClientFrame::parse(text) {
        Ok(ClientFrame::Message { text: message, id, data }) => {
            assert!(message.is_none_or(|message| !message.is_empty() && message.trim() == message));
            assert!(id.is_none_or(|id| (1..=ClientFrame::MAX_ID_BYTES).contains(&id.len())));
            assert!(data.get().starts_with('{') && data.get().ends_with('}'));
            assert!(text.contains(data.get()));
        }
        Ok(ClientFrame::Cancel { task_id }) => {
            assert!((1..=MAX_TASK_ID_BYTES).contains(&task_id.len()));
        }
        Ok(frame) => drop(format!("{frame:?}")),
        Err(invalid) => assert!(!invalid.text().is_empty()),
    }
});
