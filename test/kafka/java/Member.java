import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * A member of a group as most are: it subscribes, polls, prints what it got and commits it, until its input ends; then it
 * leaves. `SERVERS GROUP TOPIC [SETTING=VALUE ...]`. One event in JSON a line.
 */
public class Member {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) {
        try {
            run(args);
        } catch (Throwable failure) {
            // Java's launcher of source files loses it.
            failure.printStackTrace();
            System.exit(1);
        }
    }

    private static void run(String[] args) throws Exception {
        var settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("group.id", args[1]);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        for (int n = 3; n < args.length; n++) {
            var setting = args[n].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        var isOver = new AtomicBoolean();
        var watcher = new Thread(() -> {
            try {
                while (System.in.read() != -1) continue;
            } catch (java.io.IOException closed) {
                // The input has ended this way, too.
            }
            isOver.set(true);
        });
        watcher.setDaemon(true);
        watcher.start();
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(args[2]), new Listener(consumer));
            while (!isOver.get()) {
                var records = consumer.poll(Duration.ofMillis(50));
                records.forEach(record -> print(event("record")
                    .put("partition", record.partition())
                    .put("offset", record.offset())
                    .put("value", record.value())));
                try {
                    if (!records.isEmpty()) consumer.commitSync();
                } catch (RebalanceInProgressException retried) {
                    // The next poll joins, and commits again what is still held.
                }
            }
        }
        print(event("left"));
    }

    private record Listener(KafkaConsumer<String, String> consumer) implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> added) {
            // With a cooperative assignor these are only what came; the consumer knows all that it holds.
            var event = event("assigned").put("generation", consumer.groupMetadata().generationId());
            var held = event.putArray("partitions");
            consumer.assignment().stream().mapToInt(TopicPartition::partition).sorted().forEach(held::add);
            print(event);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> lost) {}
    }

    private static ObjectNode event(String name) {
        return JSON.createObjectNode().put("event", name);
    }

    private static void print(ObjectNode event) {
        System.out.println(event);
    }
}
