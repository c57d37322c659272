//! Agents' output: chunks in, acknowledgements of what is durable out.

use std::sync::Arc;

use consign_common::{
    crash,
    name::{Id, ServerName},
};
use consign_proto::v1::{LogAck, LogChunk};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::answer::invalid;
use crate::fleet::{Lost, Sessions, ToAgent};
use crate::logs::{Answer, Append, LogError, LogWriter};

/// Chunks of one agent that wait for the disk. More of them in flight are more in one sync.
const IN_FLIGHT: usize = 8;

struct Pending {
    deployment: String,
    attempt: String,
    answer: Answer,
}

/// Takes chunks until the agent ends the stream, or sends what cannot be taken.
pub(super) fn take(
    logs: LogWriter,
    sessions: Arc<Sessions>,
    server: ServerName,
    mut chunks: Streaming<LogChunk>,
) -> ReceiverStream<Result<LogAck, Status>> {
    let (acks, answers) = mpsc::channel(IN_FLIGHT);
    let (pending, mut waiting) = mpsc::channel::<Pending>(IN_FLIGHT);
    let refusals = acks.clone();
    let from = server.clone();
    tokio::spawn(async move {
        loop {
            let chunk = tokio::select! {
                chunk = chunks.message() => chunk,
                () = refusals.closed() => return,
            };
            match chunk {
                Ok(Some(chunk)) => match hand_over(&logs, &server, chunk).await {
                    Ok(one) => {
                        if pending.send(one).await.is_err() {
                            return;
                        }
                    }
                    Err(status) => return drop(refusals.send(Err(status)).await),
                },
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(%server, %status, "a log stream broke");
                    return;
                }
            }
        }
    });
    tokio::spawn(async move {
        while let Some(Pending { deployment, attempt, answer }) = waiting.recv().await {
            let outcome = answer.await.unwrap_or(Err(LogError::Stopping));
            let ack = match outcome {
                Ok(offset) => Ok(LogAck { deployment, attempt, offset }),
                // The session said that the deployment is unknown, once.
                Err(error @ LogError::NotYours { .. }) => {
                    tracing::debug!(deployment, attempt, %error, "output refused");
                    continue;
                }
                // One log that nobody knows here must not hold up the others; it stays with the agent.
                Err(error @ LogError::TooManyAttempts { .. }) => {
                    tracing::warn!(deployment, attempt, %error, "output refused");
                    continue;
                }
                // What comes before was here, before this coordinator was restored from a backup.
                Err(error @ LogError::Gap { .. }) => {
                    if let Ok(deployment) = deployment.parse() {
                        sessions.send(&from, ToAgent::Resend { deployment, lost: Lost::Logs });
                    }
                    Err(refused(&error))
                }
                Err(error) => Err(refused(&error)),
            };
            let ends = ack.is_err();
            crash::point("log-ack-send-before");
            if acks.send(ack).await.is_err() || ends {
                return;
            }
        }
    });
    ReceiverStream::new(answers)
}

async fn hand_over(logs: &LogWriter, server: &ServerName, chunk: LogChunk) -> Result<Pending, Status> {
    crash::point("log-received");
    let id: Id = chunk.deployment.parse().map_err(invalid)?;
    let attempt = chunk.attempt.parse().map_err(invalid)?;
    let append = Append {
        server: server.clone(),
        deployment: id,
        attempt,
        offset: chunk.offset,
        records: chunk.records.into(),
    };
    let answer = logs.append(append).await.map_err(|error| refused(&error))?;
    Ok(Pending { deployment: chunk.deployment, attempt: chunk.attempt, answer })
}

fn refused(error: &LogError) -> Status {
    match error {
        LogError::NotYours { .. } | LogError::TooManyAttempts { .. } | LogError::Gap { .. } => {
            Status::failed_precondition(error.to_string())
        }
        LogError::TooLarge { .. } | LogError::Torn { .. } | LogError::Corrupt(_) => invalid(error),
        LogError::NotDurable { .. } | LogError::Stopping => Status::unavailable(error.to_string()),
    }
}
