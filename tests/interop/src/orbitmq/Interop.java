package orbitmq;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Apache RocketMQ's own Java client against orbit-broker: what an application does, end to end. */
public final class Interop {
    interface Check {
        void run() throws Exception;
    }

    private static final int PATIENCE_S = 30;
    private static final List<Runnable> CLOSERS = new ArrayList<>();
    private static Broker broker;
    private static int serial;

    public static void main(String[] args) throws Exception {
        broker = new Broker(Path.of(args[0]), Path.of(args[1]), args.length > 2 ? args[2] : "");
        broker.start();
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("send sync, async and one-way, consume all", Interop::sendAndConsume);
        checks.put("a batch keeps its order and offsets", Interop::batch);
        checks.put("tags are filtered", Interop::tags);
        checks.put("orderly consumption keeps each queue's order", Interop::orderly);
        checks.put("lite pull consumer commits and goes on", Interop::litePull);
        checks.put("delay level 1 arrives after one second, not before", Interop::delay);
        checks.put("a transaction has the outcome its producer says, at once or when it is asked", Interop::transactions);
        if (Pop.isKnown()) {
            checks.put("a group that pops gets everything, and what it refused again", Interop::pop);
        }
        checks.put("messages are found by key, unique key and place", Interop::byKey);
        checks.put("a too large message is refused, the connection lives", Interop::tooLarge);
        checks.put("SIGTERM: exit code 0 and everything kept", () -> restart(true));
        checks.put("SIGKILL: everything acknowledged is kept", () -> restart(false));
        int failed = 0;
        for (Map.Entry<String, Check> check : checks.entrySet()) {
            try {
                check.getValue().run();
                System.out.println("ok   " + check.getKey());
            } catch (Throwable e) {
                failed++;
                System.out.println("FAIL " + check.getKey());
                e.printStackTrace(System.out);
            }
            CLOSERS.forEach(Runnable::run);
            CLOSERS.clear();
        }
        if (broker.stop() != 0) {
            failed++;
            System.out.println("FAIL the broker's exit code after SIGTERM is not 0");
        }
        if (failed > 0) {
            System.out.println(broker.log());
        }
        System.out.printf("java-client: %d passed, %d failed%n", checks.size() - failed, failed);
        System.out.flush();
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1);
    }

    // ---- checks

    private static void sendAndConsume() throws Exception {
        String topic = fresh("Topic");
        DefaultMQProducer p = producer();
        Set<String> sent = new HashSet<>();
        for (int i = 0; i < 20; i++) {
            sent.add(send(p, topic, "A", "sync " + i));
        }
        CountDownLatch answers = new CountDownLatch(20);
        for (int i = 0; i < 20; i++) {
            String body = "async " + i;
            sent.add(body);
            p.send(message(topic, "A", body), new SendCallback() {
                @Override
                public void onSuccess(SendResult r) {
                    answers.countDown();
                }

                @Override
                public void onException(Throwable e) {
                    e.printStackTrace(System.out);
                }
            });
        }
        check(answers.await(PATIENCE_S, TimeUnit.SECONDS), "20 asynchronous answers");
        for (int i = 0; i < 20; i++) {
            sent.add("one-way " + i);
            p.sendOneway(message(topic, "A", "one-way " + i));
        }
        BlockingQueue<MessageExt> inbox = consume(fresh("Group"), topic, "*");
        check(bodies(take(inbox, sent.size())).equals(sent), "every message, none twice");
    }

    private static void batch() throws Exception {
        String topic = fresh("Topic");
        DefaultMQProducer p = producer();
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            batch.add(message(topic, "A", "b" + i));
        }
        SendResult r = p.send(batch);
        check(r.getSendStatus() == SendStatus.SEND_OK && r.getMsgId().split(",").length == 50, "50 ids: " + r);
        List<MessageExt> got = take(consume(fresh("Group"), topic, "*"), 50);
        got.sort((a, b) -> Long.compare(a.getQueueOffset(), b.getQueueOffset()));
        for (int i = 0; i < 50; i++) {
            check(got.get(i).getQueueOffset() == i && body(got.get(i)).equals("b" + i), "message " + i + ": " + got.get(i));
        }
    }

    private static void tags() throws Exception {
        String topic = fresh("Topic");
        DefaultMQProducer p = producer();
        Set<String> wanted = new HashSet<>();
        for (int i = 0; i < 30; i++) {
            String body = send(p, topic, List.of("A", "B", "C").get(i % 3), "m" + i);
            if (i % 3 != 1) {
                wanted.add(body);
            }
        }
        check(bodies(take(consume(fresh("Group"), topic, "A || C"), 20)).equals(wanted), "exactly tags A and C");
    }

    private static void orderly() throws Exception {
        String topic = fresh("Topic");
        DefaultMQProducer p = producer();
        for (int i = 0; i < 100; i++) {
            p.send(message(topic, "A", "m" + i), (queues, m, key) -> queues.get((Integer) key % queues.size()), i);
        }
        LinkedBlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer c = consumer(fresh("Group"), topic, "*");
        c.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            inbox.addAll(messages);
            return ConsumeOrderlyStatus.SUCCESS;
        });
        c.start();
        Map<Integer, Long> next = new HashMap<>();
        for (MessageExt m : take(inbox, 100)) {
            check(next.getOrDefault(m.getQueueId(), 0L) == m.getQueueOffset(), "out of order: " + m);
            next.put(m.getQueueId(), m.getQueueOffset() + 1);
        }
    }

    private static void litePull() throws Exception {
        String topic = fresh("Topic");
        String group = fresh("Group");
        DefaultMQProducer p = producer();
        Set<String> sent = new HashSet<>();
        for (int i = 0; i < 10; i++) {
            sent.add(send(p, topic, "A", "first " + i));
        }
        check(poll(group, topic, 10).equals(sent), "the first ten");
        sent.clear();
        for (int i = 0; i < 10; i++) {
            sent.add(send(p, topic, "A", "second " + i));
        }
        check(poll(group, topic, 10).equals(sent), "after the commit only the second ten");
    }

    private static void delay() throws Exception {
        String topic = fresh("Topic");
        DefaultMQProducer p = producer();
        send(p, topic, "A", "now");
        BlockingQueue<MessageExt> inbox = consume(fresh("Group"), topic, "*");
        take(inbox, 1);
        Message later = message(topic, "A", "later");
        later.setDelayTimeLevel(1);
        long sentAt = System.currentTimeMillis();
        p.send(later);
        MessageExt got = take(inbox, 1).get(0);
        long after = System.currentTimeMillis() - sentAt;
        check(body(got).equals("later") && after >= 1000, "after " + after + " ms");
        check(got.getTopic().equals(topic), "its own topic: " + got);
    }

    private static void transactions() throws Exception {
        String topic = fresh("Topic");
        BlockingQueue<MessageExt> inbox = consume(fresh("Group"), topic, "*");
        Set<String> asked = ConcurrentHashMap.newKeySet();
        TransactionMQProducer p = new TransactionMQProducer(fresh("Producers"));
        p.setNamesrvAddr(Broker.NAMESRV);
        p.setSendMsgTimeout(10_000);
        p.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message m, Object arg) {
                return (LocalTransactionState) arg;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt m) {
                asked.add(body(m));
                return body(m).equals("asked, no") ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.COMMIT_MESSAGE;
            }
        });
        p.start();
        CLOSERS.add(p::shutdown);
        p.sendMessageInTransaction(message(topic, "A", "yes"), LocalTransactionState.COMMIT_MESSAGE);
        p.sendMessageInTransaction(message(topic, "A", "no"), LocalTransactionState.ROLLBACK_MESSAGE);
        p.sendMessageInTransaction(message(topic, "A", "asked, no"), LocalTransactionState.UNKNOW);
        p.sendMessageInTransaction(message(topic, "A", "asked, yes"), LocalTransactionState.UNKNOW);
        // Four threads and as many queues: they may come in either order.
        List<MessageExt> got = take(inbox, 2);
        check(bodies(got).equals(Set.of("yes", "asked, yes")), "what was committed: " + got);
        check(got.stream().allMatch(m -> m.getTopic().equals(topic)), "its own topic: " + got);
        check(asked.equals(Set.of("asked, no", "asked, yes")), "asked about: " + asked);
        check(inbox.poll(Broker.QUESTIONS_EVERY_MS + 1_000, TimeUnit.MILLISECONDS) == null, "nothing comes twice");
    }

    private static void byKey() throws Exception {
        String topic = fresh("Topic");
        DefaultMQProducer p = producer();
        long begin = System.currentTimeMillis() - 1000;
        List<SendResult> results = new ArrayList<>();
        for (int i = 0; i < 12; i++) {
            Message m = message(topic, "A", "m" + i);
            m.setKeys(List.of("all", "k" + i % 4));
            results.add(p.send(m));
        }
        List<MessageExt> found = p.queryMessage(topic, "k1", 32, begin, begin + 60_000).getMessageList();
        check(found.stream().map(Interop::body).toList().equals(List.of("m1", "m5", "m9")), "by key: " + found);
        found = p.queryMessage(topic, "all", 2, begin, begin + 60_000).getMessageList();
        check(found.stream().map(Interop::body).toList().equals(List.of("m10", "m11")), "the newest two: " + found);
        check(body(p.viewMessage(topic, results.get(7).getMsgId())).equals("m7"), "by unique key");
        check(body(p.viewMessage(topic, results.get(8).getOffsetMsgId())).equals("m8"), "by place");
        try {
            p.queryMessage(topic, "k9", 32, begin, begin + 60_000);
            throw new AssertionError("an unknown key was found");
        } catch (MQClientException expected) {
            // no message
        }
    }

    private static void tooLarge() throws Exception {
        String topic = fresh("Topic");
        DefaultMQProducer p = producer();
        p.setMaxMessageSize(16 << 20);
        p.setRetryTimesWhenSendFailed(0);
        p.setCompressMsgBodyOverHowmuch(32 << 20);
        try {
            p.send(new Message(topic, new byte[(4 << 20) + 1]));
            throw new AssertionError("it was accepted");
        } catch (MQBrokerException e) {
            check(e.getResponseCode() == 13, "MESSAGE_ILLEGAL: " + e);
        }
        send(p, topic, "A", "small");
    }

    private static void restart(boolean clean) throws Exception {
        String topic = fresh("Topic");
        String group = fresh("Group");
        DefaultMQProducer p = producer();
        Set<String> sent = new HashSet<>();
        for (int i = 0; i < 200; i++) {
            sent.add(send(p, topic, "A", "before " + i));
        }
        if (clean) {
            check(broker.stop() == 0, "exit code 0 after SIGTERM");
        } else {
            broker.kill();
        }
        broker.start();
        p.setRetryTimesWhenSendFailed(20);
        sent.add(send(p, topic, "A", "after"));
        check(bodies(take(consume(group, topic, "*"), sent.size())).containsAll(sent), "all that was acknowledged");
    }

    // ---- helpers of the checks

    private static String fresh(String kind) {
        return kind + "_" + ++serial;
    }

    private static DefaultMQProducer producer() throws Exception {
        DefaultMQProducer p = new DefaultMQProducer(fresh("Producers"));
        p.setNamesrvAddr(Broker.NAMESRV);
        p.setSendMsgTimeout(10_000);
        p.start();
        CLOSERS.add(p::shutdown);
        return p;
    }

    private static Message message(String topic, String tag, String body) {
        return new Message(topic, tag, body.getBytes(StandardCharsets.UTF_8));
    }

    private static String send(DefaultMQProducer p, String topic, String tag, String body) throws Exception {
        SendResult r = p.send(message(topic, tag, body));
        check(r.getSendStatus() == SendStatus.SEND_OK, "status " + r.getSendStatus());
        return body;
    }

    private static DefaultMQPushConsumer consumer(String group, String topic, String tags) throws Exception {
        DefaultMQPushConsumer c = new DefaultMQPushConsumer(group);
        c.setNamesrvAddr(Broker.NAMESRV);
        c.setHeartbeatBrokerInterval(2000);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.subscribe(topic, tags);
        CLOSERS.add(c::shutdown);
        return c;
    }

    private static void pop() throws Exception {
        String topic = fresh("Topic");
        DefaultMQProducer p = producer();
        Set<String> sent = new HashSet<>();
        for (int i = 0; i < 40; i++) {
            sent.add(send(p, topic, "A", "m" + i));
        }
        LinkedBlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        Set<String> refused = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer c = consumer(fresh("Group"), topic, "*");
        Pop.use(p, c, topic);
        c.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt m = messages.get(0);
            if (body(m).equals("m7") && refused.add("m7")) {
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
            inbox.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        List<MessageExt> got = take(inbox, 40);
        check(bodies(got).equals(sent), "every message, none twice");
        for (MessageExt m : got) {
            int times = body(m).equals("m7") ? 1 : 0;
            check(m.getReconsumeTimes() == times, body(m) + " says it came " + m.getReconsumeTimes() + " times before");
        }
        check(inbox.poll(2, TimeUnit.SECONDS) == null, "nothing comes twice");
    }

    private static BlockingQueue<MessageExt> consume(String group, String topic, String tags) throws Exception {
        LinkedBlockingQueue<MessageExt> inbox = new LinkedBlockingQueue<>();
        DefaultMQPushConsumer c = consumer(group, topic, tags);
        c.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            inbox.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        return inbox;
    }

    private static Set<String> poll(String group, String topic, int count) throws Exception {
        DefaultLitePullConsumer c = new DefaultLitePullConsumer(group);
        c.setNamesrvAddr(Broker.NAMESRV);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.setAutoCommit(false);
        c.subscribe(topic, "*");
        c.start();
        Set<String> got = new HashSet<>();
        long limit = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_S);
        while (got.size() < count && System.nanoTime() < limit) {
            got.addAll(bodies(c.poll(500)));
        }
        c.commitSync();
        c.shutdown();
        return got;
    }

    private static List<MessageExt> take(BlockingQueue<MessageExt> inbox, int count) throws Exception {
        List<MessageExt> got = new ArrayList<>();
        while (got.size() < count) {
            MessageExt m = inbox.poll(PATIENCE_S, TimeUnit.SECONDS);
            check(m != null, "only " + got.size() + " of " + count + " messages came within " + PATIENCE_S + " s");
            got.add(m);
        }
        return got;
    }

    private static Set<String> bodies(List<MessageExt> messages) {
        Set<String> all = new HashSet<>();
        messages.forEach(m -> all.add(body(m)));
        check(all.size() == messages.size(), "a message came twice");
        return all;
    }

    private static String body(MessageExt m) {
        return new String(m.getBody(), StandardCharsets.UTF_8);
    }

    private static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }
}
