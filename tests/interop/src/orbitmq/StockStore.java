package orbitmq;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.zip.CRC32;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Messages of all sorts into whatever broker there is, a book of them, and whether a broker has what is in the book.
 * {@code send NAMESRV BOOK ROUND} and {@code verify NAMESRV BOOK}; scripts/prove-stock-store moves the store between.
 */
public final class StockStore {
    private static final String TOPIC = "Stock";
    private static final String DELAYED = "StockDelayed";
    private static final String GROUP = "stock-group";
    private static final int SINGLES = 600;
    private static final int BATCHES = 40;
    private static final int DELAYED_MESSAGES = 12;
    /** The third of messageDelayLevel, as the script sets it: due after the broker was stopped and another one started. */
    private static final int DELAY_LEVEL = 3;
    private static final long DELAY_LIMIT_MS = 60_000;

    private StockStore() {
    }

    public static void main(String[] args) throws Exception {
        Path book = Path.of(args[2]);
        try {
            if (args[0].equals("send")) {
                send(args[1], book, args[3]);
            } else {
                verify(args[1], book);
            }
            System.exit(0);
        } catch (Throwable failure) {
            failure.printStackTrace();
            // The clients' threads would keep the process.
            System.exit(1);
        }
    }

    private static void send(String namesrv, Path book, String round) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("stock-producer");
        producer.setNamesrvAddr(namesrv);
        producer.setSendMsgTimeout(10_000);
        producer.setRetryTimesWhenSendFailed(10);
        producer.start();
        waitForBroker(producer);
        List<String> lines = new ArrayList<>();
        MessageQueue one = null;
        for (int n = 0; n < SINGLES; n++) {
            Message message = new Message(TOPIC, "Tag" + n % 3, "key-" + round + "-" + n, body(round + "-" + n, 50 + n * 37 % 9_000));
            message.putUserProperty("number", Integer.toString(n));
            // One queue gets every tenth in order, the others what is left.
            SendResult sent = one != null && n % 10 == 0 ? producer.send(message, one) : producer.send(message);
            one = sent.getMessageQueue().getQueueId() == 0 ? sent.getMessageQueue() : one;
            lines.add(line(sent, message));
        }
        for (int n = 0; n < BATCHES; n++) {
            List<Message> batch = new ArrayList<>();
            for (int m = 0; m < 8; m++) {
                String name = round + "-batch-" + n + "-" + m;
                batch.add(new Message(TOPIC, "Batch", name, body(name, 200)));
            }
            SendResult sent = producer.send(batch, one);
            check(sent.getSendStatus() == SendStatus.SEND_OK, "a batch is sent: " + sent);
            for (int m = 0; m < batch.size(); m++) {
                lines.add(line(one.getQueueId(), sent.getQueueOffset() + m, batch.get(m)));
            }
        }
        for (int n = 0; n < DELAYED_MESSAGES; n++) {
            Message message = new Message(DELAYED, "Later", "later-" + round + "-" + n, body(round + "-later-" + n, 300));
            message.setDelayTimeLevel(DELAY_LEVEL);
            SendResult sent = producer.send(message);
            check(sent.getSendStatus() == SendStatus.SEND_OK, "a delayed message is sent: " + sent);
            lines.add("delayed " + message.getKeys() + " " + crc(message.getBody()));
        }
        DefaultMQPullConsumer consumer = consumer(namesrv);
        for (MessageQueue queue : queues(consumer, TOPIC)) {
            long offset = consumer.maxOffset(queue) / 2;
            // A pull makes the group known.
            consumer.pull(queue, "*", offset, 1);
            consumer.updateConsumeOffset(queue, offset);
            consumer.getDefaultMQPullConsumerImpl().getOffsetStore().updateConsumeOffsetToBroker(queue, offset, false);
            lines.add("offset " + queue.getQueueId() + " " + offset);
        }
        Files.write(book, lines, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        System.out.println("sent: " + lines.size() + " lines of the book");
        consumer.shutdown();
        producer.shutdown();
    }

    private static void verify(String namesrv, Path book) throws Exception {
        Map<String, String> expected = new HashMap<>();
        Map<String, String> delayed = new HashMap<>();
        Map<Integer, Long> offsets = new HashMap<>();
        for (String line : Files.readAllLines(book)) {
            String[] parts = line.split(" ");
            switch (parts[0]) {
                case "message" -> expected.put(parts[1] + "/" + parts[2], parts[3] + " " + parts[4] + " " + parts[5]);
                case "delayed" -> delayed.put(parts[1], parts[2]);
                case "offset" -> offsets.put(Integer.valueOf(parts[1]), Long.valueOf(parts[2]));
                default -> throw new AssertionError(line);
            }
        }
        DefaultMQPullConsumer consumer = consumer(namesrv);
        int found = 0;
        for (MessageQueue queue : queues(consumer, TOPIC)) {
            for (MessageExt message : all(consumer, queue)) {
                String is = expected.remove(queue.getQueueId() + "/" + message.getQueueOffset());
                String should = message.getKeys() + " " + message.getTags() + " " + crc(message.getBody());
                check(should.equals(is), "offset " + message.getQueueOffset() + " of " + queue + " is " + should + ", sent was " + is);
                found++;
            }
            Long offset = offsets.get(queue.getQueueId());
            if (offset != null) {
                long kept = consumer.fetchConsumeOffset(queue, true);
                check(kept == offset, "the group stands at " + offset + " of " + queue + ", the broker says " + kept);
            }
        }
        check(expected.isEmpty(), expected.size() + " messages are missing, one of them " + expected.keySet().stream().findFirst().orElse(""));
        int late = delayed(consumer, delayed);
        System.out.println("verified: " + found + " messages, " + late + " delayed ones, " + offsets.size() + " offsets");
        consumer.shutdown();
    }

    /** Waits until every delayed message was delivered, and that none was twice. */
    private static int delayed(DefaultMQPullConsumer consumer, Map<String, String> delayed) throws Exception {
        long limit = System.currentTimeMillis() + DELAY_LIMIT_MS;
        while (true) {
            Set<String> missing = new TreeSet<>(delayed.keySet());
            Set<String> seen = new HashSet<>();
            for (MessageQueue queue : queues(consumer, DELAYED)) {
                for (MessageExt message : all(consumer, queue)) {
                    String key = message.getKeys();
                    check(crc(message.getBody()).equals(delayed.get(key)), key + " has another body");
                    if (!seen.add(key)) {
                        System.out.println("delivered twice: " + key);
                    }
                    missing.remove(key);
                }
            }
            if (missing.isEmpty()) {
                return seen.size();
            }
            check(System.currentTimeMillis() < limit, "not delivered: " + missing);
            Thread.sleep(500);
        }
    }

    /** The broker may not be registered yet, and its topics are made by the first send. */
    private static void waitForBroker(DefaultMQProducer producer) throws Exception {
        long limit = System.currentTimeMillis() + 60_000;
        while (true) {
            try {
                producer.send(new Message("StockFirst", body("first", 10)));
                return;
            } catch (Exception e) {
                if (System.currentTimeMillis() > limit) {
                    throw e;
                }
                Thread.sleep(500);
            }
        }
    }

    private static DefaultMQPullConsumer consumer(String namesrv) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(GROUP);
        consumer.setNamesrvAddr(namesrv);
        consumer.start();
        return consumer;
    }

    private static Set<MessageQueue> queues(DefaultMQPullConsumer consumer, String topic) throws Exception {
        long limit = System.currentTimeMillis() + 20_000;
        while (true) {
            try {
                return new TreeSet<>(consumer.fetchSubscribeMessageQueues(topic));
            } catch (Exception e) {
                // The route may not be known yet.
                if (System.currentTimeMillis() > limit) {
                    throw e;
                }
                Thread.sleep(200);
            }
        }
    }

    /** Every message of the queue, in order and without a gap. */
    private static List<MessageExt> all(DefaultMQPullConsumer consumer, MessageQueue queue) throws Exception {
        List<MessageExt> all = new ArrayList<>();
        long offset = consumer.minOffset(queue);
        long end = consumer.maxOffset(queue);
        while (offset < end) {
            PullResult pulled = consumer.pull(queue, "*", offset, 32);
            check(pulled.getPullStatus() == PullStatus.FOUND, "a pull at " + offset + " of " + queue + " finds " + pulled);
            for (MessageExt message : pulled.getMsgFoundList()) {
                check(message.getQueueOffset() == offset, "offset " + message.getQueueOffset() + " of " + queue + " where " + offset + " was expected");
                all.add(message);
                offset++;
            }
        }
        return all;
    }

    private static String line(SendResult sent, Message message) {
        check(sent.getSendStatus() == SendStatus.SEND_OK, "a message is sent: " + sent);
        return line(sent.getMessageQueue().getQueueId(), sent.getQueueOffset(), message);
    }

    private static String line(int queue, long offset, Message message) {
        return "message " + queue + " " + offset + " " + message.getKeys() + " " + message.getTags() + " " + crc(message.getBody());
    }

    private static byte[] body(String name, int bytes) {
        StringBuilder text = new StringBuilder(name);
        while (text.length() < bytes) {
            text.append(' ').append(text.length()).append(name);
        }
        return text.toString().getBytes(StandardCharsets.UTF_8);
    }

    private static String crc(byte[] bytes) {
        CRC32 crc = new CRC32();
        crc.update(bytes);
        return Long.toHexString(crc.getValue()) + ":" + bytes.length;
    }

    private static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }
}
