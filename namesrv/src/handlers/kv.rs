//! The key-value configuration. A change is answered when it is on the disk.

use protocol::Command;
use protocol::code::response;
use protocol::header::namesrv::{Kv, KvNamespace, PutKv};

use super::{Answer, Context, Outcome};

pub(super) async fn put(context: &Context, command: &Command<'_>) -> Outcome {
    let header = PutKv::from(command)?;
    let put = context
        .shared
        .kv
        .borrow_mut()
        .put(&header.namespace, &header.key, &header.value);
    put.map_err(|full| Answer::refusal(response::SYSTEM_ERROR, full.to_string()))?;
    tracing::info!(namespace = %header.namespace, key = %header.key, peer = %context.peer, "configuration value set");
    save(context).await
}

pub(super) fn get(context: &Context, command: &Command<'_>) -> Outcome {
    let header = Kv::from(command)?;
    match context
        .shared
        .kv
        .borrow()
        .get(&header.namespace, &header.key)
    {
        Some(value) => Ok(Answer::with_field("value", value.to_owned())),
        None => {
            let remark = format!(
                "No config item, Namespace: {} Key: {}",
                header.namespace, header.key
            );
            Err(Answer::refusal(response::QUERY_NOT_FOUND, remark))
        }
    }
}

pub(super) async fn delete(context: &Context, command: &Command<'_>) -> Outcome {
    let header = Kv::from(command)?;
    if !context
        .shared
        .kv
        .borrow_mut()
        .delete(&header.namespace, &header.key)
    {
        return Ok(Answer::done());
    }
    tracing::info!(namespace = %header.namespace, key = %header.key, peer = %context.peer, "configuration value deleted");
    save(context).await
}

pub(super) fn list(context: &Context, command: &Command<'_>) -> Outcome {
    let namespace = KvNamespace::from(command)?.namespace;
    let mut body = Vec::new();
    if context
        .shared
        .kv
        .borrow()
        .append_namespace(&mut body, &namespace)
    {
        return Ok(Answer::with_body(body));
    }
    Err(Answer::refusal(
        response::QUERY_NOT_FOUND,
        format!("No config item, Namespace: {namespace}"),
    ))
}

async fn save(context: &Context) -> Outcome {
    match context.shared.save_kv().await {
        Ok(()) => Ok(Answer::done()),
        Err(error) => {
            tracing::error!(%error, "saving the key-value configuration failed");
            let remark = format!("the change is in effect but could not be saved: {error}");
            Err(Answer::refusal(response::SYSTEM_ERROR, remark))
        }
    }
}
