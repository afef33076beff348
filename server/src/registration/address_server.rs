//! Name servers that an address server names: a list of `host:port` with `;` between, in the body of an HTTP answer.
//!
//! It is asked at the start and then every period, since that is how name servers come and go without a restart of brokers. As
//! long as it does not answer, or with nothing of use, the list stays as it was.

use std::io::{self, Read};
use std::rc::Weak;
use std::sync::Arc;
use std::time::Duration;

use super::Registration;
use crate::config::{AddressServer, Settings, values};
use crate::published::Published;

const TIMEOUT_SECONDS: u64 = 3;
/// Far more than any list of name servers.
const BODY_BYTES_MAX: u64 = 1 << 16;
const REDIRECTS_MAX: usize = 3;
const OK: u16 = 200;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the address server does not answer: {0}")]
    Http(#[from] minreq::Error),
    #[error("the address server's answer breaks off: {0}")]
    Body(#[from] io::Error),
    #[error("the address server answers with status {0}")]
    Status(u16),
    #[error("the address server answers {0:?}, not addresses like 10.0.0.1:9876;10.0.0.2:9876")]
    NoList(String),
}

/// The name servers it names now; never none. Blocks.
pub fn ask(url: &str) -> Result<Vec<String>, Failure> {
    let request = minreq::get(url)
        .with_timeout(TIMEOUT_SECONDS)
        .with_max_redirects(REDIRECTS_MAX);
    let answer = request.send_lazy()?;
    if answer.status_code != OK {
        return Err(Failure::Status(answer.status_code));
    }
    let mut body = Vec::new();
    answer.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
    let text = String::from_utf8_lossy(&body);
    // Only the first line counts, as in RocketMQ.
    let line = text.trim().lines().next().unwrap_or_default();
    values::addresses(line)
        .filter(|addresses| !addresses.is_empty())
        .ok_or_else(|| Failure::NoList(line.to_owned()))
}

/// Asks once; what it names is in the settings afterwards. Says whether it answered.
pub(super) async fn ask_and_publish(
    server: &AddressServer,
    settings: &Published<Arc<Settings>>,
) -> bool {
    let url = server.url.clone();
    let named = match reactor::offload_remote("ask-address-server", move || ask(&url)).await {
        Ok(named) => named,
        Err(failure) => {
            tracing::warn!(url = server.url, "name servers stay as they are: {failure}");
            return false;
        }
    };
    // Settings have one owner, the coordinator's core, and between these lines nothing waits.
    let now = settings.load();
    if now.namesrv_list() != named {
        tracing::info!(
            url = server.url,
            name_servers = named.join(";"),
            "other name servers"
        );
        settings.publish(Arc::new(now.with_fetched(named)));
    }
    true
}

/// Until the registration is gone.
pub(super) async fn follow(
    registration: Weak<Registration>,
    server: AddressServer,
    settings: Published<Arc<Settings>>,
) {
    loop {
        reactor::sleep(Duration::from_millis(server.period_ms)).await;
        let answered = ask_and_publish(&server, &settings).await;
        let Some(registration) = registration.upgrade() else {
            return;
        };
        if answered {
            registration.use_name_servers(&settings.load().namesrv_list());
        }
    }
}
