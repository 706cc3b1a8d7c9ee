//! Keeps a connection to one replica, and reads what it reports.

use std::sync::Arc;
use std::time::Duration;

use sleuth_client::{Client, ClientError, Loads};
use tokio::time::{sleep, timeout};

use crate::fleet::Fleet;
use crate::replica::Replica;

/// Pauses between attempts to reach a replica.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Never ends; to be aborted when the replica leaves.
pub(crate) async fn follow(fleet: Fleet, replica: Arc<Replica>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let reached = {
            let _turn = fleet.turn().await;
            reach(&fleet, &replica).await
        };
        match reached {
            Ok((client, loads)) => {
                pause = FIRST_PAUSE;
                read(&fleet, &replica, &client, loads).await;
                tracing::warn!(replica = %replica.id, "replica lost");
                replica.disconnected();
                fleet.lost(&replica);
            }
            Err(why) => {
                tracing::debug!(replica = %replica.id, why, "replica not reached");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A connection that works: the replica has said what it is, and will tell its load.
async fn reach(fleet: &Fleet, replica: &Replica) -> Result<(Client, Loads), String> {
    let settings = fleet.settings();
    let work = async {
        let client = fleet.dial().dial(&replica.url).await?;
        let card = Arc::new(client.model().await?);
        let most = settings.silence / 3;
        let least = settings.report_interval.min(most);
        let loads = client.watch_load(least, most).await?;
        Ok::<_, ClientError>((client, card, loads))
    };
    let reached = timeout(settings.silence, work).await;
    let (client, card, loads) =
        reached.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    replica.connected(client.clone(), Arc::clone(&card));
    fleet.reached(replica, &card);
    Ok((client, loads))
}

/// Reads reports until they end, or stay away too long.
async fn read(fleet: &Fleet, replica: &Replica, client: &Client, mut loads: Loads) {
    let silence = fleet.settings().silence;
    let mut is_first = true;
    while let Ok(Ok(Some(report))) = timeout(silence, loads.next()).await {
        let changed = replica.reported(report.load.clone());
        fleet.reported(replica, report, is_first);
        if changed && !is_first {
            // Another version answers by default: what it is called and takes may differ.
            match timeout(silence, client.model()).await {
                Ok(Ok(card)) => {
                    let card = Arc::new(card);
                    replica.describes(Arc::clone(&card));
                    fleet.reached(replica, &card);
                }
                Ok(Err(_)) | Err(_) => return,
            }
        }
        is_first = false;
    }
}
