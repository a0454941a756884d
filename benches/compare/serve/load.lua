-- wrk: sends the lines of a file as bodies, one after the other, each thread from a place of its own.
local bodies, position, threads = {}, 0, 0

function setup(thread)
   thread:set("place", threads)
   threads = threads + 1
end

function init(args)
   for line in io.lines(args[1]) do
      bodies[#bodies + 1] = wrk.format("POST", "/knn-service", { ["Content-Type"] = "application/json" }, line)
   end
   position = place * 97
end

function request()
   position = position % #bodies + 1
   return bodies[position]
end

function response(status)
   if status ~= 200 then bad = (bad or 0) + 1 end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format('{"requests": %d, "seconds": %.2f, "per_second": %.1f, "p50_ms": %.2f, "p99_ms": %.2f, "errors": %d}\n',
      summary.requests, summary.duration / 1e6, summary.requests / (summary.duration / 1e6),
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
