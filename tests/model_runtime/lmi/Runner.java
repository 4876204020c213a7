import ai.djl.inference.Predictor;
import ai.djl.modality.Input;
import ai.djl.modality.Output;
import ai.djl.ndarray.BytesSupplier;
import ai.djl.repository.zoo.Criteria;
import ai.djl.repository.zoo.ZooModel;
import ai.djl.translate.TranslateException;
import ai.djl.util.PairList;
import ai.djl.inference.streaming.ChunkedBytesSupplier;
import com.google.gson.Gson;
import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * Loads a model folder with DJL's Python engine and answers batches: a line of stdin is a JSON list of base64 bodies, a
 * line of stdout the list of their answers. Batches go through batchPredict, as DJL Serving sends them; a list of one
 * goes through predict.
 */
public final class Runner {

    public static void main(String[] args) throws Exception {
        Criteria.Builder<Input, Output> builder =
                Criteria.builder()
                        .setTypes(Input.class, Output.class)
                        .optModelPath(Path.of(args[0]))
                        .optEngine("Python");
        for (int i = 1; i < args.length; i++) {
            String[] pair = args[i].split("=", 2);
            builder.optOption(pair[0], pair[1]);
        }
        Gson gson = new Gson();
        try (ZooModel<Input, Output> model = builder.build().loadModel();
                Predictor<Input, Output> predictor = model.newPredictor();
                BufferedReader in =
                        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            System.out.println("ready");
            String line;
            while ((line = in.readLine()) != null) {
                List<Input> batch = new ArrayList<>();
                for (String body : gson.fromJson(line, String[].class)) {
                    Input input = new Input();
                    input.addProperty("Content-Type", "application/json");
                    input.add("data", Base64.getDecoder().decode(body));
                    batch.add(input);
                }
                List<JsonObject> answers = new ArrayList<>();
                try {
                    List<Output> outputs =
                            batch.size() == 1
                                    ? List.of(predictor.predict(batch.get(0)))
                                    : predictor.batchPredict(batch);
                    for (Output output : outputs) {
                        answers.add(answer(output));
                    }
                } catch (TranslateException e) {
                    JsonObject failed = new JsonObject();
                    failed.addProperty("exception", String.valueOf(e.getMessage()));
                    answers.add(failed);
                }
                System.out.println(gson.toJson(answers));
            }
        }
    }

    private static JsonObject answer(Output output) throws Exception {
        JsonObject answer = new JsonObject();
        answer.addProperty("code", output.getCode());
        for (Map.Entry<String, String> property : output.getProperties().entrySet()) {
            if ("content-type".equalsIgnoreCase(property.getKey())) {
                answer.addProperty("type", property.getValue());
            }
        }
        PairList<String, BytesSupplier> content = output.getContent();
        StringBuilder body = new StringBuilder();
        int pieces = 0;
        for (int i = 0; i < content.size(); i++) {
            BytesSupplier supplier = content.valueAt(i);
            if (supplier instanceof ChunkedBytesSupplier) {
                ChunkedBytesSupplier chunks = (ChunkedBytesSupplier) supplier;
                while (chunks.hasNext()) {
                    byte[] piece = chunks.nextChunk(2, TimeUnit.MINUTES);
                    body.append(new String(piece, StandardCharsets.UTF_8));
                    pieces += piece.length > 0 ? 1 : 0;
                }
            } else {
                body.append(new String(supplier.getAsBytes(), StandardCharsets.UTF_8));
                pieces++;
            }
        }
        answer.addProperty("body", body.toString());
        answer.addProperty("pieces", pieces);
        return answer;
    }

    private Runner() {}
}
