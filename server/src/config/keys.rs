//! Every setting of broker.conf: its default, what values it takes, and what it does here.
//!
//! A flat table. Names and defaults are RocketMQ's; the last group is our own. What only tunes other designs and is seldom
//! seen in a file stands in `tuning_keys`.

/// One setting.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// As it would stand in the file; empty means "not set".
    pub default: &'static str,
    pub kind: Kind,
    pub effect: Effect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// A whole number from the first to the second, both included.
    Int(i64, i64),
    /// A share of the whole: `75`, or `0.75`.
    Percent,
    /// Hours of the day like `04` or `04;16`.
    Hours,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An IP address.
    Ip,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Taken over at once when it is changed in the running broker.
    Live,
    /// Read at the start.
    Start,
    /// Tunes something that is built differently here (thread pools, file sizes of derived files): accepted, without effect.
    Tuning,
    /// Asks for something that this version does not do: said as a warning unless it is the default.
    Absent,
}

use super::tuning_keys::TUNING_KEYS;

use Effect::{Absent, Live, Start, Tuning};
use Kind::{Bool, Choice, Hours, Int, Ip, Percent, Text};

const ANY: Kind = Int(i64::MIN, i64::MAX);
const PORT: Kind = Int(1, 65_535);
const COUNT: Kind = Int(0, i32::MAX as i64);
const MILLIS: Kind = Int(0, i64::MAX);

const fn key(name: &'static str, default: &'static str, kind: Kind, effect: Effect) -> Key {
    Key {
        name,
        default,
        kind,
        effect,
    }
}

/// Spellings of earlier versions and of users' files, with the name that is meant.
pub const ALIASES: &[(&str, &str)] = &[
    ("mapedFileSizeCommitLog", "mappedFileSizeCommitLog"),
    ("mapedFileSizeConsumeQueue", "mappedFileSizeConsumeQueue"),
    ("warmMappedFileEnable", "warmMapedFileEnable"),
    (
        "destroyMappedFileIntervalForcibly",
        "destroyMapedFileIntervalForcibly",
    ),
    // Of the Java process, in 4.x.
    (
        "rocketmq.broker.diskSpaceWarningLevelRatio",
        "diskSpaceWarningLevelRatio",
    ),
    (
        "rocketmq.broker.diskSpaceCleanForciblyRatio",
        "diskSpaceCleanForciblyRatio",
    ),
    ("haSlaveFallbehindMax", "haMaxGapNotInSync"),
    ("namesrvaddr", "namesrvAddr"),
    ("nameSrvAddr", "namesrvAddr"),
    ("nameServerAddr", "namesrvAddr"),
    ("transferMessageByHeap", "transferMsgByHeap"),
    ("shortPollingTimeMillis", "shortPollingTimeMills"),
];

pub const DELAY_LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";

pub static KEYS: &[Key] = &[
    // who it is
    key("brokerClusterName", "DefaultCluster", Text, Start),
    key("brokerName", "", Text, Start),
    key("brokerId", "0", Int(-1, i64::MAX), Start),
    key(
        "brokerRole",
        "ASYNC_MASTER",
        Choice(&["ASYNC_MASTER", "SYNC_MASTER", "SLAVE"]),
        Start,
    ),
    key("rocketmqHome", "", Text, Tuning),
    key("brokerConfigPath", "", Text, Tuning),
    key("regionId", "DefaultRegion", Text, Start),
    key("traceOn", "true", Bool, Live),
    // addresses
    key("bindAddress", "0.0.0.0", Ip, Start),
    key("listenPort", "10911", PORT, Start),
    key("haListenPort", "0", Int(0, 65_535), Start),
    key("brokerIP1", "", Text, Start),
    key("brokerIP2", "", Text, Start),
    key("namesrvAddr", "", Text, Start),
    key("fetchNamesrvAddrByAddressServer", "false", Bool, Start),
    key("rmqAddressServerDomain", "jmenv.tbsite.net", Text, Start),
    key("rmqAddressServerSubGroup", "nsaddr", Text, Start),
    key("fetchNameSrvAddrByDnsLookup", "false", Bool, Absent),
    key(
        "fetchNamesrvAddrInterval",
        "10000",
        Int(100, 86_400_000),
        Start,
    ),
    key("updateNameServerAddrPeriod", "120000", MILLIS, Tuning),
    // registration
    key("registerNameServerPeriod", "30000", MILLIS, Start),
    key("registerBrokerTimeoutMills", "24000", MILLIS, Start),
    // RocketMQ: true. Here a table that has not changed is only confirmed (322): the name server says if it holds another.
    key("forceRegister", "false", Bool, Start),
    key("compressedRegister", "false", Bool, Start),
    key("enableSplitRegistration", "false", Bool, Start),
    key("splitRegistrationSize", "800", Int(1, 1_000_000), Start),
    key("enableSingleTopicRegister", "false", Bool, Start),
    key("brokerPermission", "6", Int(0, 7), Live),
    key("brokerHeartbeatInterval", "1000", MILLIS, Tuning),
    key("brokerNotActiveTimeoutMillis", "10000", MILLIS, Tuning),
    key("sendHeartbeatTimeoutMillis", "1000", MILLIS, Tuning),
    key("compatibleWithOldNameSrv", "true", Bool, Tuning),
    key("skipPreOnline", "false", Bool, Tuning),
    // topics and groups
    key("defaultTopicQueueNums", "8", Int(1, 65_536), Start),
    key("autoCreateTopicEnable", "true", Bool, Live),
    key("autoCreateSubscriptionGroup", "true", Bool, Live),
    key("enableCreateSysGroup", "true", Bool, Live),
    key("clusterTopicEnable", "true", Bool, Start),
    key("brokerTopicEnable", "true", Bool, Start),
    key("traceTopicEnable", "false", Bool, Start),
    key("msgTraceTopicName", "RMQ_SYS_TRACE_TOPIC", Text, Start),
    key("validateSystemTopicWhenUpdateTopic", "true", Bool, Live),
    key("enableMixedMessageType", "false", Bool, Live),
    key("enableSplitMetadata", "true", Bool, Live),
    key("splitMetadataSize", "2000", Int(1, 1_000_000), Live),
    key("useStaticSubscription", "false", Bool, Absent),
    key("clearRetryTopicWhenDeleteTopic", "true", Bool, Tuning),
    // clients
    key("notifyConsumerIdsChangedEnable", "true", Bool, Live),
    key("channelExpiredTimeout", "120000", MILLIS, Live),
    key("subscriptionExpiredTimeout", "600000", MILLIS, Tuning),
    key("rejectPullConsumerEnable", "false", Bool, Live),
    key("realTimeNotifyConsumerChange", "true", Bool, Tuning),
    key("enableRegisterProducer", "true", Bool, Live),
    key("enablePropertyFilter", "false", Bool, Live),
    key("enableCalcFilterBitMap", "false", Bool, Tuning),
    key("expectConsumerNumUseFilter", "32", COUNT, Tuning),
    key("maxErrorRateOfBloomFilter", "20", COUNT, Tuning),
    key("filterDataCleanTimeSpan", "86400000", MILLIS, Tuning),
    key("filterSupportRetry", "false", Bool, Tuning),
    key("useTLS", "false", Bool, Absent),
    key("lockInStrictMode", "false", Bool, Absent),
    key(
        "defaultMessageRequestMode",
        "PULL",
        Choice(&["PULL", "POP"]),
        Live,
    ),
    key("defaultPopShareQueueNum", "-1", Int(-1, 65_536), Live),
    key("serverLoadBalancerEnable", "true", Bool, Live),
    // offsets
    key(
        "flushConsumerOffsetInterval",
        "5000",
        Int(10, 86_400_000),
        Live,
    ),
    key(
        "flushConsumerOffsetHistoryInterval",
        "60000",
        MILLIS,
        Tuning,
    ),
    key("useServerSideResetOffset", "true", Bool, Live),
    key("consumerOffsetUpdateVersionStep", "500", COUNT, Tuning),
    key("enableCleanExpiredOffset", "false", Bool, Tuning),
    key("enableBroadcastOffsetStore", "true", Bool, Tuning),
    key("broadcastOffsetExpireSecond", "120", COUNT, Tuning),
    key("broadcastOffsetExpireMaxSecond", "300", COUNT, Tuning),
    // sending and pulling
    key("maxMessageSize", "4194304", Int(1, 16_777_216), Live),
    key("maxTopicLength", "127", COUNT, Tuning),
    key("autoMessageVersionOnTopicLen", "true", Bool, Tuning),
    key("rejectTransactionMessage", "false", Bool, Live),
    key("longPollingEnable", "true", Bool, Live),
    key("shortPollingTimeMills", "1000", MILLIS, Live),
    key(
        "maxTransferBytesOnMessageInMemory",
        "262144",
        Int(1, 1 << 30),
        Live,
    ),
    key(
        "maxTransferCountOnMessageInMemory",
        "32",
        Int(1, 65_536),
        Live,
    ),
    key(
        "maxTransferBytesOnMessageInDisk",
        "65536",
        Int(1, 1 << 30),
        Live,
    ),
    key("maxTransferCountOnMessageInDisk", "8", Int(1, 65_536), Live),
    key("pullBatchMaxMessageCount", "160", COUNT, Tuning),
    key("accessMessageInMemoryMaxRatio", "40", Int(0, 100), Start),
    key("accessMessageInMemoryHotRatio", "26", Int(0, 100), Tuning),
    key("slaveReadEnable", "false", Bool, Absent),
    key("litePullMessageEnable", "true", Bool, Tuning),
    key("transferMsgByHeap", "true", Bool, Tuning),
    key("defaultQueryMaxNum", "32", COUNT, Live),
    key("disableConsumeIfConsumerReadSlowly", "false", Bool, Live),
    key("consumerFallbehindThreshold", "17179869184", MILLIS, Live),
    key("startAcceptSendRequestTimeStamp", "0", ANY, Tuning),
    // the store
    key("storePathRootDir", "", Text, Start),
    key("storePathCommitLog", "", Text, Start),
    key("storePathDLedgerCommitLog", "", Text, Tuning),
    key("readOnlyCommitLogStorePaths", "", Text, Absent),
    key(
        "mappedFileSizeCommitLog",
        "1073741824",
        Int(1 << 20, (1 << 31) - 1),
        Start,
    ),
    key("mappedFileSizeConsumeQueue", "6000000", COUNT, Tuning),
    key("enableConsumeQueueExt", "false", Bool, Tuning),
    key("mappedFileSizeConsumeQueueExt", "50331648", COUNT, Tuning),
    key("bitMapLengthConsumeQueueExt", "64", COUNT, Tuning),
    key(
        "flushDiskType",
        "ASYNC_FLUSH",
        Choice(&["ASYNC_FLUSH", "SYNC_FLUSH"]),
        Start,
    ),
    key("flushIntervalCommitLog", "500", Int(1, 3_600_000), Start),
    key("flushCommitLogLeastPages", "4", Int(0, 1 << 20), Start),
    key(
        "flushCommitLogThoroughInterval",
        "10000",
        Int(1, 3_600_000),
        Start,
    ),
    key("flushCommitLogTimed", "true", Bool, Tuning),
    key("commitIntervalCommitLog", "200", MILLIS, Tuning),
    key("commitCommitLogLeastPages", "4", COUNT, Tuning),
    key("commitCommitLogThoroughInterval", "200", MILLIS, Tuning),
    key("flushIntervalConsumeQueue", "1000", MILLIS, Tuning),
    key("flushConsumeQueueLeastPages", "2", COUNT, Tuning),
    key("flushConsumeQueueThoroughInterval", "60000", MILLIS, Tuning),
    key("flushLeastPagesWhenWarmMapedFile", "4096", COUNT, Tuning),
    key("syncFlushTimeout", "5000", Int(1, 3_600_000), Live),
    key("putMessageTimeout", "8000", MILLIS, Tuning),
    key("maxRecoveryCommitlogFiles", "30", COUNT, Tuning),
    key("checkCRCOnRecover", "true", Bool, Tuning),
    key("messageIndexEnable", "true", Bool, Start),
    key("messageIndexSafe", "false", Bool, Tuning),
    key("maxHashSlotNum", "5000000", COUNT, Tuning),
    key("maxIndexNum", "20000000", COUNT, Tuning),
    key("maxMsgsNumBatch", "64", COUNT, Live),
    key("storeType", "default", Text, Tuning),
    key("messageStorePlugIn", "", Text, Absent),
    // keeping and deleting
    key("deleteWhen", "04", Hours, Live),
    key("fileReservedTime", "72", COUNT, Live),
    key("diskMaxUsedSpaceRatio", "75", Percent, Live),
    key("diskSpaceCleanForciblyRatio", "85", Percent, Live),
    key("diskSpaceWarningLevelRatio", "90", Percent, Live),
    key("cleanFileForciblyEnable", "true", Bool, Live),
    key("cleanResourceInterval", "10000", Int(100, 86_400_000), Live),
    key(
        "deleteCommitLogFilesInterval",
        "100",
        Int(0, 86_400_000),
        Live,
    ),
    key("deleteConsumeQueueFilesInterval", "100", MILLIS, Tuning),
    key("deleteFileBatchMax", "10", Int(1, 1 << 20), Live),
    key(
        "destroyMapedFileIntervalForcibly",
        "120000",
        Int(0, 86_400_000),
        Live,
    ),
    key("redeleteHangedFileInterval", "120000", MILLIS, Tuning),
    // delay, timers, transactions
    key("messageDelayLevel", DELAY_LEVELS, Text, Start),
    key(
        "flushDelayOffsetInterval",
        "10000",
        Int(10, 86_400_000),
        Start,
    ),
    key("delayOffsetUpdateVersionStep", "200", COUNT, Tuning),
    key("enableScheduleAsyncDeliver", "false", Bool, Tuning),
    key("timerWheelEnable", "true", Bool, Live),
    key("timerPrecisionMs", "1000", Int(1, 3_600_000), Start),
    key("timerMaxDelaySec", "259200", COUNT, Live),
    key(
        "timerRollWindowSlot",
        "172800",
        Int(2, 7 * 86_400 - 60),
        Start,
    ),
    key(
        "mappedFileSizeTimerLog",
        "104857600",
        Int(4_096, i32::MAX as i64),
        Start,
    ),
    key("appendTopicForTimerDeleteKey", "false", Bool, Live),
    key("recallMessageEnable", "false", Bool, Live),
    key("allowRecallWhenBrokerNotWriteable", "true", Bool, Live),
    key("transactionTimeOut", "6000", Int(0, 86_400_000), Live),
    key("transactionCheckMax", "15", Int(0, 65_536), Live),
    key(
        "transactionCheckInterval",
        "30000",
        Int(100, 86_400_000),
        Live,
    ),
    // replication
    key("haMasterAddress", "", Text, Absent),
    key("haSendHeartbeatInterval", "5000", MILLIS, Tuning),
    key("haHousekeepingInterval", "20000", MILLIS, Tuning),
    key("haTransferBatchSize", "32768", COUNT, Tuning),
    key("haMaxGapNotInSync", "268435456", COUNT, Tuning),
    key("slaveTimeout", "3000", MILLIS, Tuning),
    key("totalReplicas", "1", COUNT, Absent),
    key("inSyncReplicas", "1", COUNT, Absent),
    key("minInSyncReplicas", "1", COUNT, Absent),
    key("allAckInSyncStateSet", "false", Bool, Absent),
    key("enableControllerMode", "false", Bool, Absent),
    key("controllerAddr", "", Text, Absent),
    key("enableSlaveActingMaster", "false", Bool, Absent),
    // Of a process of several brokers.
    key("brokerConfigPaths", "", Text, Absent),
    key("enableDLegerCommitLog", "false", Bool, Absent),
    key("dLegerGroup", "", Text, Absent),
    key("dLegerPeers", "", Text, Absent),
    key("dLegerSelfId", "", Text, Absent),
    // rights
    key("aclEnable", "false", Bool, Absent),
    key("authenticationEnabled", "false", Bool, Absent),
    key("authorizationEnabled", "false", Bool, Absent),
    // what other designs tune
    key("sendMessageThreadPoolNums", "4", COUNT, Tuning),
    key("pullMessageThreadPoolNums", "20", COUNT, Tuning),
    key("litePullMessageThreadPoolNums", "20", COUNT, Tuning),
    key("ackMessageThreadPoolNums", "16", COUNT, Tuning),
    key("putMessageFutureThreadPoolNums", "4", COUNT, Tuning),
    key("processReplyMessageThreadPoolNums", "20", COUNT, Tuning),
    key("queryMessageThreadPoolNums", "10", COUNT, Tuning),
    key("adminBrokerThreadPoolNums", "16", COUNT, Tuning),
    key("clientManageThreadPoolNums", "32", COUNT, Tuning),
    key("consumerManageThreadPoolNums", "32", COUNT, Tuning),
    key("heartbeatThreadPoolNums", "2", COUNT, Tuning),
    key("endTransactionThreadPoolNums", "12", COUNT, Tuning),
    key("loadBalanceProcessorThreadPoolNums", "32", COUNT, Tuning),
    key("sendThreadPoolQueueCapacity", "10000", COUNT, Tuning),
    key("putThreadPoolQueueCapacity", "10000", COUNT, Tuning),
    key("pullThreadPoolQueueCapacity", "100000", COUNT, Tuning),
    key("litePullThreadPoolQueueCapacity", "100000", COUNT, Tuning),
    key("ackThreadPoolQueueCapacity", "100000", COUNT, Tuning),
    key("replyThreadPoolQueueCapacity", "10000", COUNT, Tuning),
    key("queryThreadPoolQueueCapacity", "20000", COUNT, Tuning),
    key(
        "clientManagerThreadPoolQueueCapacity",
        "1000000",
        COUNT,
        Tuning,
    ),
    key(
        "consumerManagerThreadPoolQueueCapacity",
        "1000000",
        COUNT,
        Tuning,
    ),
    key("heartbeatThreadPoolQueueCapacity", "50000", COUNT, Tuning),
    key("endTransactionPoolQueueCapacity", "100000", COUNT, Tuning),
    key("brokerFastFailureEnable", "true", Bool, Tuning),
    key("waitTimeMillsInSendQueue", "200", MILLIS, Tuning),
    key("waitTimeMillsInPullQueue", "5000", MILLIS, Tuning),
    key("waitTimeMillsInLitePullQueue", "5000", MILLIS, Tuning),
    key("waitTimeMillsInHeartbeatQueue", "31000", MILLIS, Tuning),
    key("waitTimeMillsInTransactionQueue", "3000", MILLIS, Tuning),
    key("waitTimeMillsInAckQueue", "3000", MILLIS, Tuning),
    key("osPageCacheBusyTimeOutMills", "1000", MILLIS, Tuning),
    key("transientStorePoolEnable", "false", Bool, Tuning),
    key("transientStorePoolSize", "5", COUNT, Tuning),
    key("fastFailIfNoBufferInStorePool", "false", Bool, Tuning),
    key("warmMapedFileEnable", "false", Bool, Tuning),
    key("useReentrantLockWhenPutMessage", "true", Bool, Tuning),
    key("writeWithoutMmap", "false", Bool, Tuning),
    key("enableRunningFlagsInFlush", "false", Bool, Tuning),
    key("dataReadAheadEnable", "true", Bool, Tuning),
    key("coldDataFlowControlEnable", "false", Bool, Absent),
    key("enableCompaction", "true", Bool, Tuning),
    key("enableLmq", "false", Bool, Absent),
    key("enableMultiDispatch", "false", Bool, Absent),
    key("maxLmqConsumeQueueNum", "20000", COUNT, Tuning),
    key("highSpeedMode", "false", Bool, Tuning),
    key("enableNetWorkFlowControl", "false", Bool, Tuning),
    key("debugLockEnable", "false", Bool, Tuning),
    key("duplicationEnable", "false", Bool, Absent),
    key("diskFallRecorded", "true", Bool, Tuning),
    key("offsetCheckInSlave", "false", Bool, Tuning),
    key("isolateLogEnable", "false", Bool, Tuning),
    key("storeReplyMessageEnable", "true", Bool, Live),
    key("autoDeleteUnusedStats", "true", Bool, Tuning),
    key("enableDetailStat", "true", Bool, Tuning),
    key(
        "metricsExporterType",
        "DISABLE",
        Choice(&["DISABLE", "OTLP_GRPC", "PROM", "LOG"]),
        Absent,
    ),
    key("metricsPromExporterPort", "5557", PORT, Tuning),
    key("metricsPromExporterHost", "", Text, Tuning),
    key("serverChannelMaxIdleTimeSeconds", "120", COUNT, Start),
    key("serverWorkerThreads", "8", COUNT, Tuning),
    key("serverCallbackExecutorThreads", "0", COUNT, Tuning),
    key("serverSelectorThreads", "3", COUNT, Tuning),
    key("serverOnewaySemaphoreValue", "256", COUNT, Tuning),
    key("serverAsyncSemaphoreValue", "64", COUNT, Tuning),
    key("serverSocketSndBufSize", "0", COUNT, Tuning),
    key("serverSocketRcvBufSize", "0", COUNT, Tuning),
    key("serverSocketBacklog", "1024", COUNT, Tuning),
    key("serverPooledByteBufAllocatorEnable", "true", Bool, Tuning),
    key("useEpollNativeSelector", "false", Bool, Tuning),
    key("clientWorkerThreads", "4", COUNT, Tuning),
    key("clientCallbackExecutorThreads", "4", COUNT, Tuning),
    key("connectTimeoutMillis", "3000", MILLIS, Tuning),
    key(
        "configBlackList",
        "configBlackList;brokerConfigPath",
        Text,
        Start,
    ),
    // our own
    key("shards", "0", Int(0, 256), Start),
    key("writerCpu", "-1", Int(-1, 4095), Start),
    key("deleteBytesPerSecond", "268435456", Int(1, 1 << 50), Live),
    key(
        "flusher",
        "auto",
        Choice(&["auto", "mmap", "direct"]),
        Start,
    ),
    key("memory", "", Text, Start),
    key("windowDir", "", Text, Start),
    key("namesrvListenPort", "9876", PORT, Start),
];

/// Those above and those that only tune other designs.
pub fn all() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().chain(TUNING_KEYS)
}

pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// The known key a user most likely meant, if any is near.
pub fn nearest(name: &str) -> Option<&'static str> {
    let near = name.chars().count() / 4 + 1;
    all()
        .map(|key| (distance(name, key.name), key.name))
        .min()
        .filter(|&(edits, _)| edits <= near)
        .map(|(_, name)| name)
}

/// Edits (insert, remove, replace) between two words; letter case counts nothing.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_listed_twice_and_aliases_lead_to_known_keys() {
        let mut names: Vec<_> = all().map(|k| k.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for (old, name) in ALIASES {
            assert!(find(old).is_none(), "{old} is a key of its own");
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        assert_eq!(
            nearest("autoCreateTopicEnabled"),
            Some("autoCreateTopicEnable")
        );
        assert_eq!(nearest("listenport"), Some("listenPort"));
        assert_eq!(nearest("completelyDifferentThing"), None);
    }

    #[test]
    fn distance_counts_edits_without_case() {
        assert_eq!(distance("kitten", "Sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
