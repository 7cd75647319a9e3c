import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Assignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.GroupSubscription;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.Cluster;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;

/**
 * What the Java client's own classes say: where a key belongs, who gets which partition, how a member's subscription and
 * assignment are written. A request in JSON a line of input, its answer in JSON a line of output.
 */
public class Rules {
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
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            System.out.println(JSON.writeValueAsString(answer(JSON.readTree(line))));
        }
    }

    private static JsonNode answer(JsonNode request) {
        return switch (request.get("rule").asText()) {
            case "partitions" -> partitions(request);
            case "range" -> range(request);
            case "write subscription" -> hex(ConsumerProtocol.serializeSubscription(subscription(request), version(request)));
            case "read subscription" -> readSubscription(bytes(request.get("bytes")));
            case "write assignment" -> hex(ConsumerProtocol.serializeAssignment(assignment(request), version(request)));
            case "read assignment" -> readAssignment(bytes(request.get("bytes")));
            default -> throw new IllegalArgumentException(request.toString());
        };
    }

    private static ArrayNode partitions(JsonNode request) {
        var answer = JSON.createArrayNode();
        for (JsonNode key : request.get("keys")) {
            answer.add(BuiltInPartitioner.partitionForKey(HEX.parseHex(key.asText()), request.get("count").asInt()));
        }
        return answer;
    }

    private static ObjectNode range(JsonNode request) {
        var node = new Node(1, "127.0.0.1", 9092);
        var infos = new ArrayList<PartitionInfo>();
        request.get("partitions").properties().forEach(topic -> {
            for (int partition = 0; partition < topic.getValue().asInt(); partition++) {
                infos.add(new PartitionInfo(topic.getKey(), partition, node, new Node[] {node}, new Node[] {node}));
            }
        });
        var subscriptions = new HashMap<String, Subscription>();
        for (JsonNode member : request.get("members")) {
            var subscription = new Subscription(texts(member.get("topics")));
            subscription.setGroupInstanceId(Optional.ofNullable(member.get("instance").textValue()));
            subscriptions.put(member.get("id").asText(), subscription);
        }
        var cluster = new Cluster("cluster", List.of(node), infos, Set.of(), Set.of());
        Map<String, Assignment> assigned =
            new RangeAssignor().assign(cluster, new GroupSubscription(subscriptions)).groupAssignment();
        var answer = JSON.createObjectNode();
        assigned.forEach((member, given) -> answer.set(member, list(given.partitions())));
        return answer;
    }

    private static Subscription subscription(JsonNode request) {
        return new Subscription(texts(request.get("topics")), bytes(request.get("userData")), partitionsOf(request));
    }

    private static Assignment assignment(JsonNode request) {
        return new Assignment(partitionsOf(request), bytes(request.get("userData")));
    }

    private static ObjectNode readSubscription(ByteBuffer bytes) {
        var subscription = ConsumerProtocol.deserializeSubscription(bytes);
        var answer = JSON.createObjectNode();
        answer.set("topics", JSON.valueToTree(subscription.topics()));
        answer.set("partitions", list(subscription.ownedPartitions()));
        answer.set("userData", hex(subscription.userData()));
        var sticky = new Sticky().read(subscription);
        answer.set("stickyPartitions", list(sticky.partitions));
        answer.put("stickyGeneration", sticky.generation.orElse(-1));
        return answer;
    }

    private static ObjectNode readAssignment(ByteBuffer bytes) {
        var assignment = ConsumerProtocol.deserializeAssignment(bytes);
        var answer = JSON.createObjectNode();
        answer.set("partitions", list(assignment.partitions()));
        answer.set("userData", hex(assignment.userData()));
        return answer;
    }

    /** Shows what StickyAssignor reads from a member's subscription. */
    private static class Sticky extends StickyAssignor {
        MemberData read(Subscription subscription) {
            return memberData(subscription);
        }
    }

    private static short version(JsonNode request) {
        return (short) request.get("version").asInt();
    }

    private static List<String> texts(JsonNode array) {
        var texts = new ArrayList<String>();
        array.forEach(text -> texts.add(text.asText()));
        return texts;
    }

    private static List<TopicPartition> partitionsOf(JsonNode request) {
        var partitions = new ArrayList<TopicPartition>();
        request.get("partitions").forEach(pair -> partitions.add(new TopicPartition(pair.get(0).asText(), pair.get(1).asInt())));
        return partitions;
    }

    private static ArrayNode list(List<TopicPartition> partitions) {
        var answer = JSON.createArrayNode();
        partitions.forEach(one -> answer.addArray().add(one.topic()).add(one.partition()));
        return answer;
    }

    private static ByteBuffer bytes(JsonNode hex) {
        return hex.isNull() ? null : ByteBuffer.wrap(HEX.parseHex(hex.asText()));
    }

    private static JsonNode hex(ByteBuffer buffer) {
        if (buffer == null) return JSON.nullNode();
        var bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return JSON.getNodeFactory().textNode(HEX.formatHex(bytes));
    }
}
