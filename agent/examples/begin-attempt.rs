//! Begins an attempt under a supervisor and waits for its end: the agent that a test kills.
//!
//! `begin-attempt DIRECTORY SPEC_FILE PROGRAM`, where PROGRAM is the `consign-agent` that supervises.

use std::{error::Error, path::PathBuf};

use consign_agent::supervisor::{AttemptSpec, Launcher, Supervisor};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [directory, spec, program] = arguments.as_slice() else {
        return Err("begin-attempt DIRECTORY SPEC_FILE PROGRAM".into());
    };
    let spec: AttemptSpec = serde_json::from_slice(&std::fs::read(spec)?)?;
    let supervisor = Supervisor::start(directory, &Launcher::Session { program: program.clone() }).await?;
    supervisor.run(&spec).await?;
    supervisor.release(spec.attempt).await?;
    supervisor.wait(spec.attempt).await?;
    Ok(())
}
