// Everything that a caller in Node.js does: unary, metadata, errors, many at once, streams, compression, large messages, deadlines,
// cancellation. Prints what came back as one JSON object.
//     node caller.js <host:port> <proto file>
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, proto] = process.argv.slice(2);
const definition = loader.loadSync(proto, { keepCase: true, longs: Number });
const Service = grpc.loadPackageDefinition(definition).inference.GRPCInferenceService;
const options = { "grpc.max_receive_message_length": -1 };
const client = new Service(address, grpc.credentials.createInsecure(), options);
const zipped = new Service(address, grpc.credentials.createInsecure(), { ...options, "grpc.default_compression_algorithm": 2 });

function request(id, rows = 1, model = "phishing") {
  const raw = Buffer.from(new Float32Array(rows * 4).fill(1).buffer);
  return { model_name: model, id, inputs: [{ name: "x", datatype: "FP32", shape: [rows, 4] }], raw_input_contents: [raw] };
}

function call(method, message, { metadata = new grpc.Metadata(), deadline_ms = 20000, by = client, cancel = false } = {}) {
  return new Promise((resolve) => {
    const answer = { initial: {}, trailing: {} };
    const running = by[method](message, metadata, { deadline: Date.now() + deadline_ms }, (error, reply) => {
      answer.code = error ? error.code : 0;
      answer.details = error ? error.details : "";
      answer.reply = reply;
      if (error) resolve(answer);
    });
    running.on("metadata", (found) => (answer.initial = found.getMap()));
    running.on("status", (status) => {
      answer.trailing = status.metadata.getMap();
      resolve(answer);
    });
    if (cancel) running.cancel();
  });
}

function stream(count) {
  return new Promise((resolve) => {
    const ids = [];
    const running = client.ModelStreamInfer();
    running.on("data", (reply) => ids.push(reply.infer_response.id));
    running.on("status", (status) => resolve({ ids, code: status.code }));
    running.on("error", () => {});
    for (let number = 0; number < count; number++) running.write(request(`s${number}`));
    running.end();
  });
}

async function main() {
  const metadata = new grpc.Metadata();
  metadata.set("x-request-id", "r-1");
  metadata.set("x-blob-bin", Buffer.from([0, 255]));
  const found = {
    live: (await call("ServerLive", {})).reply.live,
    one: await call("ModelInfer", request("a"), { metadata }),
    unknown: await call("ModelInfer", request("", 1, "nope")),
    zipped: await call("ModelInfer", request("z", 500), { by: zipped }),
    expired: (await call("ModelInfer", request(""), { deadline_ms: -1 })).code,
    cancelled: (await call("ModelInfer", request(""), { cancel: true })).code,
    stream: await stream(20),
  };
  const many = await Promise.all([...Array(500).keys()].map((number) => call("ModelInfer", request(String(number)))));
  found.many = many.filter((one, number) => one.reply && one.reply.id === String(number)).length;
  const large = await call("ModelInfer", request("l", 200000));
  found.large = large.reply && large.reply.raw_output_contents.map((part) => part.length);
  delete found.zipped.reply.raw_output_contents;
  delete found.one.reply.raw_output_contents;
  console.log(JSON.stringify(found));
  client.close();
  zipped.close();
}

main();
