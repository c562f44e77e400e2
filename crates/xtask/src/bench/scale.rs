//! Whether the cost of an operation depends on how much is stored, and how much memory that takes.

use super::api::Load;
use super::server::Server;
use super::{Figure, megabytes, process};

/// Objects that each operation is measured with.
const SAMPLE: usize = 1000;

/// Creates pods up to `objects` and compares operations at the beginning and at the end.
pub(crate) fn measure(
    server: &Server,
    objects: usize,
    in_flight: usize,
) -> anyhow::Result<Vec<Figure>> {
    let pid = server.pid();
    let objects = objects.max(2 * SAMPLE);
    server.run(async move |kubeconfig| {
        let load = Load::prepare(&kubeconfig, pid, in_flight).await?;
        let mut figures = Vec::new();
        let early = operations(&load, 0).await?;
        load.create(SAMPLE..objects - SAMPLE).await?;
        let late = operations(&load, objects - SAMPLE).await?;
        for ((work, early), (_, late)) in early.into_iter().zip(late) {
            let value = format!("{early:.3} ms and {late:.3} ms of CPU each");
            figures.push(Figure::new(format!("{work} at {SAMPLE} and at {objects} pods"), value));
        }
        let bytes = process::resident_of(pid)?;
        let value = format!("{:.0} MB", megabytes(bytes));
        figures.push(Figure::new(format!("memory of the API server with {objects} pods"), value));
        Ok(figures)
    })
}

async fn operations(load: &Load, from: usize) -> anyhow::Result<[(&'static str, f64); 3]> {
    let new = from..from + SAMPLE;
    Ok([
        ("create", load.create(new.clone()).await?.cpu_ms()),
        ("get", load.get(new.end, SAMPLE).await?.cpu_ms()),
        ("status patch", load.status(new).await?.cpu_ms()),
    ])
}
