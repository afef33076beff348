package orbitmq.since5;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.AckCallback;
import org.apache.rocketmq.client.consumer.AckResult;
import org.apache.rocketmq.client.consumer.AckStatus;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PopCallback;
import org.apache.rocketmq.client.consumer.PopResult;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.exception.RemotingException;
import org.apache.rocketmq.remoting.protocol.header.AckMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.ExtraInfoUtil;
import org.apache.rocketmq.remoting.protocol.header.PopMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/**
 * What is not over yet when one broker hands the store to another: timers, popped messages, open transactions, retries.
 * {@code send NAMESRV BOOK ROUND} leaves some of each behind; {@code verify} and {@code verify-all NAMESRV BOOK}, with the
 * other broker, complete them and check that each comes once, none early, and none again that was done before. Needs 5.x.
 */
public final class StockState {
    private static final String TIMED = "StockTimed";
    private static final String POPPED = "StockPopped";
    private static final String DECIDED = "StockDecided";
    private static final String RETRIED = "StockRetried";
    private static final String POP_GROUP = "stock-pop";
    private static final String RETRY_GROUP = "stock-retry";
    private static final int RETRIES_MAX = 2;
    private static final int RETRY_LEVEL = 2;
    private static final int SOON_MS = 1_500;
    private static final int NEXT_MS = 30_000;
    private static final int FAR_MS = 90_000;
    private static final int HIDDEN_MS = 40_000;
    /** With less left than this it is too late to withdraw or to acknowledge. */
    private static final int LEFT_MIN_MS = 5_000;
    /** RocketMQ looks at what was not acknowledged some seconds late. */
    private static final int REVIVED_WITHIN_MS = 12_000;
    private static final int LIMIT_MS = 180_000;
    private static final int CALL_MS = 10_000;

    private final Map<String, String[]> book = new TreeMap<>();
    private final Path path;
    private final TransactionMQProducer producer;
    private final DefaultMQPullConsumer consumer;
    private MQClientAPIImpl api;
    private String broker;
    private String address;

    public static void main(String[] args) throws Exception {
        try {
            StockState state = new StockState(args[1], Path.of(args[2]));
            if (args[0].equals("send")) {
                state.send(args[3]);
            } else {
                state.verify(args[0].equals("verify-all"));
            }
            System.exit(0);
        } catch (Throwable failure) {
            failure.printStackTrace();
            // The clients' threads would keep the process.
            System.exit(1);
        }
    }

    private StockState(String namesrv, Path path) throws Exception {
        this.path = path;
        if (Files.exists(path)) {
            for (String line : Files.readAllLines(path)) {
                String[] words = line.split("\t");
                book.put(words[0], words);
            }
        }
        producer = new TransactionMQProducer("stock-decider");
        producer.setNamesrvAddr(namesrv);
        producer.setSendMsgTimeout(CALL_MS);
        producer.setTransactionListener(new Decider());
        producer.start();
        consumer = new DefaultMQPullConsumer(RETRY_GROUP);
        consumer.setNamesrvAddr(namesrv);
        consumer.setMaxReconsumeTimes(RETRIES_MAX);
        consumer.start();
        findBroker();
        for (String topic : List.of(TIMED, POPPED, DECIDED, RETRIED)) {
            api.createTopic(address, "TBW102", new TopicConfig(topic, 1, 1), CALL_MS);
        }
        SubscriptionGroupConfig group = new SubscriptionGroupConfig();
        group.setGroupName(POP_GROUP);
        api.createSubscriptionGroup(address, group, CALL_MS);
    }

    /** Keys that end in "commit" are committed when the broker asks, others not, and open ones only by the next broker. */
    private final class Decider implements TransactionListener {
        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object decision) {
            return (LocalTransactionState) decision;
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            synchronized (book) {
                if (!book.containsKey(message.getKeys())) {
                    return LocalTransactionState.UNKNOW;
                }
            }
            boolean commits = message.getKeys().endsWith("commit");
            return commits ? LocalTransactionState.COMMIT_MESSAGE : LocalTransactionState.ROLLBACK_MESSAGE;
        }
    }

    private void send(String round) throws Exception {
        Map<String, String[]> notes = new TreeMap<>();
        timers(notes, round);
        pops(notes, round);
        retries(notes, round);
        // Last, so that RocketMQ is stopped before it has marked what was decided.
        transactions(notes, round);
        synchronized (book) {
            book.putAll(notes);
        }
        write();
        System.out.println("sent: " + notes.size() + " notes of what is not over");
    }

    // --- timers: "timed DUE", "recalled DUE", "recall DUE HANDLE"

    private void timers(Map<String, String[]> notes, String round) throws Exception {
        long now = System.currentTimeMillis();
        for (int n = 0; n < 5; n++) {
            timed(notes, "timed-" + round + "-far-" + n, now + FAR_MS + n * 777, "timed");
        }
        for (int n = 0; n < 20; n++) {
            long due = now + NEXT_MS + n * 333;
            timed(notes, "timed-" + round + "-next-" + n, n % 2 == 0 ? due : due / 1000 * 1000, "timed");
        }
        for (int n = 0; n < 5; n++) {
            timed(notes, "timed-" + round + "-soon-" + n, now + SOON_MS + n * 100, "timed");
        }
        for (int n = 0; n < 4; n++) {
            long due = now + NEXT_MS + 1_000 + n * 250;
            String handle = timed(notes, "timed-" + round + "-recalled-" + n, due, "recalled");
            producer.recallMessage(TIMED, handle);
        }
        for (int n = 0; n < 4; n++) {
            long due = now + FAR_MS + n * 250;
            String handle = timed(notes, "timed-" + round + "-recall-" + n, due, "recall");
            note(notes, "timed-" + round + "-recall-" + n, "recall", Long.toString(due), handle);
        }
        Set<String> soon = new TreeSet<>();
        notes.keySet().stream().filter(key -> key.contains("-soon-")).forEach(soon::add);
        waitFor("timers that are due", () -> keys(TIMED).keySet().containsAll(soon));
    }

    private String timed(Map<String, String[]> notes, String key, long due, String kind) throws Exception {
        Message message = new Message(TIMED, "Timed", key, key.getBytes(StandardCharsets.UTF_8));
        message.setDeliverTimeMs(due);
        SendResult sent = producer.send(message);
        check(sent.getSendStatus() == SendStatus.SEND_OK, "a timer is sent: " + sent);
        note(notes, key, kind, Long.toString(due));
        return sent.getRecallHandle();
    }

    private void recallOthers() throws Exception {
        for (String[] note : notes("recall")) {
            boolean inTime = Long.parseLong(note[2]) - System.currentTimeMillis() > LEFT_MIN_MS;
            if (inTime) {
                producer.recallMessage(TIMED, note[3]);
            }
            note[1] = inTime ? "recalled" : "timed";
        }
    }

    private int verifyTimers(boolean all) throws Exception {
        long horizon = all ? Long.MAX_VALUE : System.currentTimeMillis() + NEXT_MS + 10_000;
        Set<String> expected = new TreeSet<>();
        for (String[] note : notes("timed")) {
            if (Long.parseLong(note[2]) < horizon) {
                expected.add(note[0]);
            }
        }
        waitFor("timers", () -> keys(TIMED).keySet().containsAll(expected));
        if (all) {
            long last = notes("recalled").stream().mapToLong(note -> Long.parseLong(note[2])).max().orElse(0);
            waitFor("the last withdrawn timer", () -> System.currentTimeMillis() > last + 3_000);
        }
        for (Map.Entry<String, List<MessageExt>> entry : keys(TIMED).entrySet()) {
            String[] note = book.get(entry.getKey());
            check(note != null && note[1].equals("timed"), entry.getKey() + " was withdrawn and came");
            check(entry.getValue().size() == 1, entry.getKey() + " came " + entry.getValue().size() + " times");
            long early = Long.parseLong(note[2]) - entry.getValue().get(0).getStoreTimestamp();
            check(early <= 0, entry.getKey() + " came " + early + " ms early");
        }
        return expected.size();
    }

    // --- transactions: "decided"; the key says what becomes of them

    private void transactions(Map<String, String[]> notes, String round) throws Exception {
        for (int n = 0; n < 12; n++) {
            boolean commits = n % 2 == 0;
            boolean open = n >= 6;
            String key = "decided-" + round + "-" + n + (open ? "-open-" : "-") + (commits ? "commit" : "rollback");
            LocalTransactionState decision = open ? LocalTransactionState.UNKNOW
                : commits ? LocalTransactionState.COMMIT_MESSAGE : LocalTransactionState.ROLLBACK_MESSAGE;
            producer.sendMessageInTransaction(new Message(DECIDED, "Tx", key, key.getBytes(StandardCharsets.UTF_8)), decision);
            note(notes, key, "decided");
        }
    }

    private int verifyTransactions() throws Exception {
        Set<String> expected = new TreeSet<>();
        for (String[] note : notes("decided")) {
            if (note[0].endsWith("commit")) {
                expected.add(note[0]);
            }
        }
        waitFor("committed messages", () -> keys(DECIDED).keySet().containsAll(expected));
        for (Map.Entry<String, List<MessageExt>> entry : keys(DECIDED).entrySet()) {
            check(expected.contains(entry.getKey()), entry.getKey() + " was rolled back and came");
            check(entry.getValue().size() == 1, entry.getKey() + " was committed " + entry.getValue().size() + " times");
        }
        return expected.size();
    }

    // --- pop: "acked", "ack EXTRA", "left", "new"; and "hidden UNTIL"

    private void pops(Map<String, String[]> notes, String round) throws Exception {
        for (int n = 0; n < 12; n++) {
            String key = "popped-" + round + "-" + n;
            producer.send(new Message(POPPED, "Pop", key, key.getBytes(StandardCharsets.UTF_8)));
            note(notes, key, "new");
        }
        List<MessageExt> popped = new ArrayList<>();
        waitFor("messages to pop", () -> {
            popped.addAll(pop(8 - popped.size(), HIDDEN_MS));
            return popped.size() == 8;
        });
        note(notes, "hidden-" + round, "hidden", Long.toString(System.currentTimeMillis() + HIDDEN_MS));
        for (int n = 0; n < popped.size(); n++) {
            MessageExt message = popped.get(n);
            check(notes.containsKey(message.getKeys()), message.getKeys() + " was done before and came");
            String extra = message.getProperty(MessageConst.PROPERTY_POP_CK);
            switch (n) {
                case 0, 2, 5 -> {
                    ack(extra);
                    note(notes, message.getKeys(), "acked");
                }
                case 1, 3, 6 -> note(notes, message.getKeys(), "ack", extra);
                default -> note(notes, message.getKeys(), "left");
            }
        }
    }

    private long hiddenUntil() {
        return notes("hidden").stream().mapToLong(note -> Long.parseLong(note[2])).max().orElse(0);
    }

    private void ackOthers() throws Exception {
        for (String[] note : notes("ack")) {
            boolean inTime = hiddenUntil() - System.currentTimeMillis() > LEFT_MIN_MS;
            if (inTime) {
                ack(note[2]);
            }
            note[1] = inTime ? "acked" : "left";
        }
    }

    private int verifyPops() throws Exception {
        Set<String> expected = new TreeSet<>();
        for (String kind : List.of("new", "left")) {
            notes(kind).forEach(note -> expected.add(note[0]));
        }
        int count = expected.size();
        long hidden = hiddenUntil();
        waitFor("popped messages", () -> {
            for (MessageExt message : pop(32, 60_000)) {
                String key = message.getKeys();
                String[] note = book.get(key);
                check(note != null && !note[1].equals("acked"), key + " was acknowledged and came again");
                check(expected.remove(key), key + " came twice");
                boolean wasLeft = note[1].equals("left");
                check(!wasLeft || message.getReconsumeTimes() > 0, key + " does not say that it was delivered before");
                ack(message.getProperty(MessageConst.PROPERTY_POP_CK));
                note[1] = "acked";
            }
            // What was acknowledged would be here by now.
            return expected.isEmpty() && System.currentTimeMillis() > hidden + REVIVED_WITHIN_MS;
        });
        return count;
    }

    private List<MessageExt> pop(int most, long hiddenMs) throws Exception {
        PopMessageRequestHeader header = new PopMessageRequestHeader();
        header.setConsumerGroup(POP_GROUP);
        header.setTopic(POPPED);
        header.setQueueId(-1);
        header.setMaxMsgNums(most);
        header.setInvisibleTime(hiddenMs);
        header.setPollTime(2_000);
        header.setBornTime(System.currentTimeMillis());
        header.setExpType("TAG");
        header.setExp("*");
        header.setOrder(false);
        CompletableFuture<PopResult> answer = new CompletableFuture<>();
        api.popMessageAsync(broker, address, header, CALL_MS, new PopCallback() {
            @Override
            public void onSuccess(PopResult result) {
                answer.complete(result);
            }

            @Override
            public void onException(Throwable e) {
                answer.completeExceptionally(e);
            }
        });
        List<MessageExt> found = answer.get(CALL_MS, TimeUnit.MILLISECONDS).getMsgFoundList();
        return found == null ? List.of() : found;
    }

    private void ack(String extra) throws Exception {
        String[] words = ExtraInfoUtil.split(extra);
        AckMessageRequestHeader header = new AckMessageRequestHeader();
        header.setConsumerGroup(POP_GROUP);
        header.setTopic(ExtraInfoUtil.getRealTopic(words, POPPED, POP_GROUP));
        header.setQueueId(ExtraInfoUtil.getQueueId(words));
        header.setOffset(ExtraInfoUtil.getQueueOffset(words));
        header.setExtraInfo(extra);
        CompletableFuture<AckResult> answer = new CompletableFuture<>();
        api.ackMessageAsync(address, CALL_MS, new AckCallback() {
            @Override
            public void onSuccess(AckResult result) {
                answer.complete(result);
            }

            @Override
            public void onException(Throwable e) {
                answer.completeExceptionally(e);
            }
        }, header);
        AckStatus status = answer.get(CALL_MS, TimeUnit.MILLISECONDS).getStatus();
        check(status == AckStatus.OK, "an acknowledgement of " + extra + " is " + status);
    }

    // --- retries: "retried TIMES", "dead"

    private void retries(Map<String, String[]> notes, String round) throws Exception {
        String key = "retried-" + round;
        producer.send(new Message(RETRIED, "Retry", key, key.getBytes(StandardCharsets.UTF_8)));
        waitFor("the message to retry", () -> keys(RETRIED).containsKey(key));
        consumer.sendMessageBack(keys(RETRIED).get(key).get(0), RETRY_LEVEL);
        note(notes, key, "retried", "1");
    }

    private int verifyRetries() throws Exception {
        String topic = "%RETRY%" + RETRY_GROUP;
        List<String[]> retried = notes("retried");
        for (String[] note : retried) {
            int times = Integer.parseInt(note[2]);
            waitFor("a retry of " + note[0], () -> ofTimes(topic, note[0], times).size() == 1);
            consumer.sendMessageBack(ofTimes(topic, note[0], times).get(0), RETRY_LEVEL);
            if (times == RETRIES_MAX) {
                note[1] = "dead";
            } else {
                note[2] = Integer.toString(times + 1);
            }
        }
        int dead = notes("dead").size();
        if (dead > 0) {
            MessageQueue letters = new MessageQueue("%DLQ%" + RETRY_GROUP, broker, 0);
            waitFor("dead letters", () -> consumer.maxOffset(letters) == dead);
        }
        return retried.size();
    }

    private List<MessageExt> ofTimes(String topic, String key, int times) throws Exception {
        List<MessageExt> all = keys(topic).getOrDefault(key, List.of());
        return all.stream().filter(message -> message.getReconsumeTimes() == times).toList();
    }

    // --- the rest

    private void verify(boolean all) throws Exception {
        ackOthers();
        int recalled = notes("recalled").size();
        recallOthers();
        recalled = notes("recalled").size() - recalled;
        int decided = verifyTransactions();
        int retried = verifyRetries();
        int popped = verifyPops();
        int timed = verifyTimers(all);
        // Once more: nothing of it has come twice meanwhile.
        verifyTransactions();
        write();
        System.out.println("verified: " + timed + " timers, " + recalled + " withdrawals, " + popped + " popped messages, " + decided + " transactions, "
            + retried + " retries");
    }

    private void write() throws Exception {
        List<String> lines = new ArrayList<>();
        book.values().forEach(words -> lines.add(String.join("\t", words)));
        Files.write(path, lines);
    }

    private static void note(Map<String, String[]> notes, String key, String... words) {
        List<String> all = new ArrayList<>(List.of(key));
        all.addAll(List.of(words));
        notes.put(key, all.toArray(new String[0]));
    }

    private List<String[]> notes(String kind) {
        return book.values().stream().filter(note -> note[1].equals(kind)).toList();
    }

    private void findBroker() throws Exception {
        MQClientInstance factory = producer.getDefaultMQProducerImpl().getMqClientFactory();
        api = factory.getMQClientAPIImpl();
        waitFor("the broker", () -> {
            try {
                // Makes the topic whose route names the broker.
                broker = producer.send(new Message("StockFirst", new byte[10])).getMessageQueue().getBrokerName();
            } catch (MQClientException | RemotingException | MQBrokerException e) {
                return false;
            }
            address = factory.findBrokerAddressInPublish(broker);
            return address != null;
        });
    }

    /** Everything in the topic's only queue, by key. */
    private Map<String, List<MessageExt>> keys(String topic) throws Exception {
        Map<String, List<MessageExt>> found = new HashMap<>();
        MessageQueue queue = new MessageQueue(topic, broker, 0);
        long end = consumer.maxOffset(queue);
        long offset = end == 0 ? 0 : consumer.minOffset(queue);
        while (offset < end) {
            PullResult pulled = consumer.pull(queue, "*", offset, 32);
            check(pulled.getPullStatus() == PullStatus.FOUND, "a pull at " + offset + " of " + queue + " finds " + pulled);
            for (MessageExt message : pulled.getMsgFoundList()) {
                found.computeIfAbsent(message.getKeys(), key -> new ArrayList<>()).add(message);
            }
            offset = pulled.getNextBeginOffset();
        }
        return found;
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void waitFor(String what, Condition condition) throws Exception {
        long limit = System.currentTimeMillis() + LIMIT_MS;
        while (!condition.holds()) {
            check(System.currentTimeMillis() < limit, "waited in vain for " + what);
            Thread.sleep(200);
        }
    }

    private static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }
}
