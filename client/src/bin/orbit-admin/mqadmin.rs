//! mqadmin's commands: who types `updateTopic -n .. -c .. -t ..` is understood. Their flags are put into ours before
//! the command line is read.

/// What becomes of a flag's value.
#[derive(Clone, Copy)]
enum Becomes {
    /// The word at this place behind the command.
    Word(usize),
    /// A flag of ours.
    Flag(&'static str),
    /// A flag of ours without a value, if the value is true.
    Switch(&'static str),
    Nothing,
}

use Becomes::{Flag, Nothing, Switch, Word};

struct Alias {
    name: &'static str,
    words: &'static [&'static str],
    /// Short, long, and what becomes of it.
    flags: &'static [(&'static str, &'static str, Becomes)],
}

const TOPIC: (&str, &str, Becomes) = ("-t", "--topic", Word(0));
const GROUP: (&str, &str, Becomes) = ("-g", "--groupName", Word(0));
const BROKER: (&str, &str, Becomes) = ("-b", "--brokerAddr", Flag("--broker"));
const CLUSTER: (&str, &str, Becomes) = ("-c", "--clusterName", Flag("--cluster"));

#[rustfmt::skip]
const ALIASES: &[Alias] = &[
    Alias { name: "clusterList", words: &["cluster", "list"], flags: &[("-c", "--clusterName", Nothing), ("-i", "--interval", Nothing)] },
    Alias { name: "updateTopic", words: &["topic", "create"], flags: &[TOPIC, BROKER, CLUSTER, ("-r", "--readQueueNums", Flag("--read")),
        ("-w", "--writeQueueNums", Flag("--write")), ("-p", "--perm", Flag("--perm")), ("-o", "--order", Switch("--order")),
        ("-a", "--attributes", Flag("--attributes"))] },
    Alias { name: "deleteTopic", words: &["topic", "delete", "--yes"], flags: &[TOPIC, CLUSTER] },
    Alias { name: "updateTopicPerm", words: &["topic", "perm"], flags: &[TOPIC, BROKER, CLUSTER, ("-p", "--perm", Word(1))] },
    Alias { name: "topicRoute", words: &["topic", "route"], flags: &[TOPIC] },
    Alias { name: "topicStatus", words: &["topic", "status"], flags: &[TOPIC] },
    Alias { name: "topicList", words: &["topic", "list", "--all"], flags: &[("-c", "--clusterModel", Nothing)] },
    Alias { name: "updateSubGroup", words: &["group", "create"], flags: &[GROUP, BROKER, CLUSTER, ("-s", "--consumeEnable", Flag("--consume")),
        ("-d", "--consumeBroadcastEnable", Flag("--broadcast")), ("-o", "--consumeMessageOrderly", Flag("--orderly")),
        ("-q", "--retryQueueNums", Flag("--retry-queues")), ("-r", "--retryMaxTimes", Flag("--retries"))] },
    Alias { name: "deleteSubGroup", words: &["group", "delete", "--yes"], flags: &[GROUP, CLUSTER, ("-r", "--removeOffset", Switch("--with-offsets"))] },
    Alias { name: "consumerProgress", words: &["group", "progress"], flags: &[GROUP, ("-t", "--topicName", Flag("--topic")), ("-c", "--cluster", Nothing)] },
    Alias { name: "consumerStatus", words: &["group", "running"], flags: &[("-g", "--consumerGroup", Word(0)), ("-i", "--clientId", Flag("--client")),
        ("-s", "--jstack", Switch("--stacks"))] },
    Alias { name: "consumerConnection", words: &["group", "connections"], flags: &[("-g", "--consumerGroup", Word(0))] },
    Alias { name: "producerConnection", words: &["group", "producers"], flags: &[("-g", "--producerGroup", Word(0)), ("-t", "--topic", Nothing)] },
    Alias { name: "resetOffsetByTime", words: &["offset", "reset"], flags: &[("-g", "--group", Word(0)), ("-t", "--topic", Word(1)),
        ("-s", "--timestamp", Flag("--to")), ("-f", "--force", Nothing), ("-q", "--queue", Flag("--queue"))] },
    Alias { name: "skipAccumulatedMessage", words: &["offset", "skip"], flags: &[("-g", "--group", Word(0)), ("-t", "--topic", Word(1)), ("-f", "--force", Nothing)] },
    Alias { name: "cloneGroupOffset", words: &["offset", "clone"], flags: &[("-s", "--srcGroup", Word(0)), ("-d", "--destGroup", Word(1)),
        ("-t", "--topic", Word(2)), ("-o", "--offline", Nothing)] },
    Alias { name: "queryMsgById", words: &["message", "get"], flags: &[("-i", "--msgId", Word(0)), ("-t", "--topic", Flag("--topic"))] },
    Alias { name: "queryMsgByUniqueKey", words: &["message", "get"], flags: &[("-i", "--msgId", Word(0)), ("-t", "--topic", Flag("--topic"))] },
    Alias { name: "queryMsgByKey", words: &["message", "by-key"], flags: &[TOPIC, ("-k", "--msgKey", Word(1)), ("-m", "--maxNum", Flag("--max")),
        ("-b", "--beginTimestamp", Flag("--since")), ("-e", "--endTimestamp", Flag("--until"))] },
    Alias { name: "queryMsgByOffset", words: &["message", "by-offset"], flags: &[TOPIC, ("-b", "--brokerName", Flag("--broker")),
        ("-i", "--queueId", Flag("--queue")), ("-o", "--offset", Flag("--offset"))] },
    Alias { name: "queryMsgTraceById", words: &["message", "trace"], flags: &[("-i", "--msgId", Word(0)), ("-t", "--traceTopic", Flag("--trace-topic"))] },
    Alias { name: "printMsg", words: &["message", "print"], flags: &[TOPIC, ("-s", "--subExpression", Flag("--tags")),
        ("-b", "--beginTimestamp", Flag("--since")), ("-e", "--endTimestamp", Flag("--until")), ("-d", "--printBody", Nothing), ("-c", "--charsetName", Nothing)] },
    Alias { name: "printMsgByQueue", words: &["message", "print"], flags: &[TOPIC, ("-a", "--brokerName", Flag("--broker")), ("-i", "--queueId", Flag("--queue")),
        ("-s", "--subExpression", Flag("--tags")), ("-b", "--beginTimestamp", Flag("--since")), ("-e", "--endTimestamp", Flag("--until")),
        ("-p", "--print", Nothing), ("-d", "--printBody", Nothing), ("-c", "--charsetName", Nothing)] },
    Alias { name: "sendMessage", words: &["message", "send"], flags: &[TOPIC, ("-p", "--body", Word(1)), ("-k", "--keys", Flag("--key")),
        ("-c", "--tags", Flag("--tag")), ("-b", "--broker", Nothing), ("-i", "--qid", Flag("--queue")), ("-m", "--msgTraceEnable", Nothing)] },
    Alias { name: "brokerStatus", words: &["broker", "status"], flags: &[("-b", "--brokerAddr", Word(0)), ("-c", "--clusterName", Nothing)] },
    Alias { name: "getBrokerConfig", words: &["broker", "config", "get"], flags: &[("-b", "--brokerAddr", Word(0)), ("-k", "--key", Word(1))] },
    Alias { name: "updateBrokerConfig", words: &["broker", "config", "set"], flags: &[("-k", "--key", Word(0)), ("-v", "--value", Word(1)), BROKER, CLUSTER] },
    Alias { name: "wipeWritePerm", words: &["broker", "writable"], flags: &[("-b", "--brokerName", Word(0)), ("", "", Word(1))] },
    Alias { name: "addWritePerm", words: &["broker", "writable"], flags: &[("-b", "--brokerName", Word(0)), ("", "", Word(1))] },
    Alias { name: "getNamesrvConfig", words: &["namesrv", "config"], flags: &[] },
    Alias { name: "updateNamesrvConfig", words: &["namesrv", "set"], flags: &[("-k", "--key", Word(0)), ("-v", "--value", Word(1))] },
    Alias { name: "queryCq", words: &["queue", "show"], flags: &[TOPIC, ("-q", "--queue", Flag("--queue")), ("-i", "--index", Flag("--offset")),
        ("-c", "--count", Flag("--max")), ("-b", "--broker", Flag("--broker")), ("-g", "--consumer", Nothing)] },
];

const WORDS_MAX: usize = 3;

/// A command line in our words. Anything that is not mqadmin's stays as it is.
pub fn translate(words: Vec<String>) -> Vec<String> {
    let Some((own, rest)) = words.split_first() else {
        return words;
    };
    let Some((name, flags)) = rest.split_first() else {
        return words;
    };
    let Some(alias) = ALIASES.iter().find(|alias| alias.name == name) else {
        return words;
    };
    let mut out = vec![own.clone()];
    out.extend(alias.words.iter().map(|word| (*word).to_owned()));
    let mut placed: [Option<String>; WORDS_MAX] = Default::default();
    match alias.name {
        "wipeWritePerm" => placed[1] = Some("false".to_owned()),
        "addWritePerm" => placed[1] = Some("true".to_owned()),
        // Without a group, mqadmin lists them.
        "consumerProgress"
            if !flags
                .iter()
                .any(|flag| flag == "-g" || flag == "--groupName") =>
        {
            out.truncate(1);
            out.extend(["group", "list"].map(str::to_owned));
        }
        _ => {}
    }
    let mut flags = flags.iter().peekable();
    while let Some(flag) = flags.next() {
        let known = alias
            .flags
            .iter()
            .find(|(short, long, _)| flag == short || flag == long);
        let Some((_, _, becomes)) = known else {
            // Ours, such as -n or --json; or a mistake that is said to be one.
            out.push(flag.clone());
            continue;
        };
        let value = flags.next_if(|next| !next.starts_with('-') || next.len() > 2 || *next == "-1");
        match (becomes, value) {
            (Word(place), Some(value)) => placed[*place] = Some(value.clone()),
            (Flag(ours), Some(value)) => out.extend([(*ours).to_owned(), value.clone()]),
            (Switch(ours), value) if value.is_none_or(|value| value == "true") => {
                out.push((*ours).to_owned());
            }
            _ => {}
        }
    }
    out.extend(placed.into_iter().flatten());
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn translated(line: &str) -> String {
        let words = line.split(' ').map(str::to_owned).collect();
        translate(words).join(" ")
    }

    #[test]
    fn mqadmins_commands_are_put_into_ours() {
        for (theirs, ours) in [
            (
                "a updateTopic -n h:1 -c C -t T -r 4 -w 4",
                "a topic create -n h:1 --cluster C --read 4 --write 4 T",
            ),
            (
                "a resetOffsetByTime -g G -t T -s now -f true",
                "a offset reset --to now G T",
            ),
            (
                "a resetOffsetByTime -g G -t T -s -1",
                "a offset reset --to -1 G T",
            ),
            (
                "a updateBrokerConfig -b h:1 -k k -v v",
                "a broker config set --broker h:1 k v",
            ),
            ("a wipeWritePerm -b B", "a broker writable B false"),
            ("a consumerStatus -g G -s", "a group running --stacks G"),
            ("a consumerProgress", "a group list"),
            (
                "a deleteTopic -t T -c C --json",
                "a topic delete --yes --cluster C --json T",
            ),
            ("a topic list", "a topic list"),
            ("a", "a"),
        ] {
            assert_eq!(translated(theirs), ours);
        }
    }

    #[test]
    fn every_alias_with_all_its_flags_is_a_command_of_ours() {
        for alias in ALIASES {
            let mut line = vec!["orbit-admin".to_owned(), alias.name.to_owned()];
            for (short, _, becomes) in alias.flags {
                if short.is_empty() {
                    continue;
                }
                line.push((*short).to_owned());
                line.push(match becomes {
                    Switch(_) | Flag("--consume" | "--broadcast" | "--orderly") => {
                        "true".to_owned()
                    }
                    _ => "7".to_owned(),
                });
            }
            let words = translate(line);
            let read = Cli::try_parse_from(&words);
            assert!(read.is_ok(), "{words:?}: {}", read.err().expect("refused"));
        }
    }
}
