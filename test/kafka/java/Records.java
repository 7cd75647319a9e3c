import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Records of any bytes, by the Java client: `write SERVERS TOPIC=COMPRESSION ...` produces what it reads to partition 0 of each
 * topic, in one batch where it fits; `read SERVERS TOPIC COUNT` prints so many of partition 0. One record in JSON a line, its
 * bytes in hexadecimal.
 */
public class Records {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final HexFormat HEX = HexFormat.of();

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
        if (args[0].equals("read")) {
            read(args[1], args[2], Integer.parseInt(args[3]));
            return;
        }
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var lines = input.lines().toList();
        for (int n = 2; n < args.length; n++) {
            var target = args[n].split("=", 2);
            write(args[1], target[0], target[1], lines);
        }
    }

    private static void write(String servers, String topic, String compression, List<String> lines) throws Exception {
        var settings = new Properties();
        settings.put("bootstrap.servers", servers);
        settings.put("compression.type", compression);
        settings.put("linger.ms", "50");
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String line : lines) {
                JsonNode given = JSON.readTree(line);
                var timestamp = given.get("timestampMs").asLong();
                var record = new ProducerRecord<>(topic, 0, timestamp, bytes(given.get("key")), bytes(given.get("value")));
                for (JsonNode header : given.get("headers")) {
                    record.headers().add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
                }
                producer.send(record, (metadata, failure) -> {
                    if (failure == null) return;
                    failure.printStackTrace();
                    System.exit(1);
                });
            }
        }
    }

    private static void read(String servers, String topic, int count) throws Exception {
        var settings = new Properties();
        settings.put("bootstrap.servers", servers);
        var partition = new TopicPartition(topic, 0);
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            for (int read = 0; read < count; ) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println(JSON.writeValueAsString(describe(record)));
                    read++;
                }
            }
        }
    }

    private static ObjectNode describe(ConsumerRecord<byte[], byte[]> record) {
        var shown = JSON.createObjectNode();
        shown.put("offset", record.offset());
        shown.put("timestampMs", record.timestamp());
        shown.put("key", hex(record.key()));
        shown.put("value", hex(record.value()));
        var headers = shown.putArray("headers");
        record.headers().forEach(header -> headers.addArray().add(header.key()).add(hex(header.value())));
        return shown;
    }

    private static byte[] bytes(JsonNode hex) {
        return hex.isNull() ? null : HEX.parseHex(hex.asText());
    }

    private static String hex(byte[] bytes) {
        return bytes == null ? null : HEX.formatHex(bytes);
    }
}
