//! The one connection that reads the events of the dataplane, ten times a second.
//!
//! The dataplane logs events ten times a second, so more requests would find nothing. A request costs a few microseconds.

use std::time::Duration;

use tokio::time::sleep;

use super::Events;
use crate::dataplane::{DataplaneConnection, DataplaneError};

/// Time between two requests.
const EVERY: Duration = Duration::from_millis(100);

/// Time between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(200);

/// Reads events until the process ends. [`crate::dataplane::watch`] logs that the dataplane is away.
pub(crate) async fn follow(events: Events) {
    loop {
        let Err(error) = follow_connection(&events).await;
        tracing::debug!("events of the dataplane: {error}");
        sleep(AGAIN).await;
    }
}

/// Reads events until the connection ends.
async fn follow_connection(events: &Events) -> Result<std::convert::Infallible, DataplaneError> {
    let mut connection: DataplaneConnection = events.0.dataplane.connect().await?;
    loop {
        let batch = connection.events(events.query()).await?;
        let more = batch.more;
        events.add(batch);
        if !more {
            sleep(EVERY).await;
        }
    }
}
