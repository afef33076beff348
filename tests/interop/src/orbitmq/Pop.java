package orbitmq;

import java.lang.reflect.Method;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** What only 5.x clients have: groups that pop. By reflection, so that the checks compile against 4.9 as well. */
final class Pop {
    private static final String MODE = "org.apache.rocketmq.common.message.MessageRequestMode";
    private static final String GROUP = "org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig";
    private static final long TIMEOUT_MS = 3000;

    private Pop() {
    }

    static boolean isKnown() {
        try {
            Class.forName(MODE);
            return true;
        } catch (ClassNotFoundException e) {
            return false;
        }
    }

    /** From its start on the consumer pops. The producer must have sent to the topic. */
    static void use(DefaultMQProducer producer, DefaultMQPushConsumer consumer, String topic) throws Exception {
        Object factory = call(producer.getDefaultMQProducerImpl(), "getMqClientFactory");
        Object api = call(factory, "getMQClientAPIImpl");
        String broker = producer.fetchPublishMessageQueues(topic).get(0).getBrokerName();
        Object address = call(factory, "findBrokerAddressInPublish", broker);
        Object group = Class.forName(GROUP).getConstructor().newInstance();
        call(group, "setGroupName", consumer.getConsumerGroup());
        call(api, "createSubscriptionGroup", address, group, TIMEOUT_MS);
        Object pop = Class.forName(MODE).getField("POP").get(null);
        call(api, "setMessageRequestMode", address, topic, consumer.getConsumerGroup(), pop, 8, TIMEOUT_MS);
        call(consumer, "setClientRebalance", false);
    }

    private static Object call(Object target, String name, Object... args) throws Exception {
        for (Method method : target.getClass().getMethods()) {
            if (method.getName().equals(name) && method.getParameterCount() == args.length) {
                method.setAccessible(true);
                return method.invoke(target, args);
            }
        }
        throw new NoSuchMethodException(name);
    }
}
