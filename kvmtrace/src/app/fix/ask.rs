//! Questions to the operator. No answer is an answer, too: the end of the input, a signal, or time.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// What the operator said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// Nothing.
    None,
}

/// Asks a yes-or-no question.
pub(super) async fn ask(question: &str, within: Option<Duration>) -> Answer {
    match line(&format!("{question} [y/N] "), within).await {
        Some(answer) if matches!(answer.trim(), "y" | "Y" | "yes") => Answer::Yes,
        Some(answer) if !answer.is_empty() => Answer::No,
        Some(_) | None => Answer::None,
    }
}

/// Asks for a line; none where no answer comes.
pub(super) async fn line(question: &str, within: Option<Duration>) -> Option<String> {
    let mut err = std::io::stderr();
    // A terminal that is gone answers nothing, either.
    drop(write!(err, "{question}").and_then(|()| err.flush()));
    let (answered, answer) = oneshot::channel();
    // A thread of its own, which nobody waits for: a read from a terminal can't be taken back.
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_line(&mut text);
        drop(answered.send(read.ok().filter(|bytes| *bytes > 0).map(|_| text)));
    });
    let time = async {
        match within {
            Some(within) => tokio::time::sleep(within).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        answer = answer => answer.ok().flatten(),
        () = time => None,
        () = signalled() => None,
    }
}

async fn signalled() {
    let listen = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = listen(SignalKind::interrupt()) => {}
        () = listen(SignalKind::terminate()) => {}
        () = listen(SignalKind::hangup()) => {}
    }
}
