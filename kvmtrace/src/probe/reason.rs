//! An error in one line.

/// The chain of causes in one line. The verifier's log, thousands of lines long, goes to the log (`-vv`).
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        tracing::debug!("{message}");
        let line = message.split("Verifier output").next().unwrap_or_default();
        let line = line.lines().next().unwrap_or_default().trim().trim_end_matches(['.', ':']);
        if !text.contains(line) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(line);
        }
        next = error.source();
    }
    text
}
