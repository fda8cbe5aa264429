-- POSTs a JSON text of 100 bytes. With KEYS=1 every request has a path of its own. Prints requests and microseconds.
wrk.method = "POST"
wrk.body = '"' .. string.rep("x", 100) .. '"'
wrk.headers["Content-Type"] = "application/json"
if os.getenv("KEYS") then
  local base = wrk.path
  local run = os.time() .. "-" .. math.random(1e9)
  local count = 0
  request = function()
    count = count + 1
    return wrk.format(nil, base .. "/" .. run .. "-" .. count)
  end
end
done = function(summary)
  local errors = summary.errors
  local bad = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("WRK %d %d %d\n", summary.requests, summary.duration, bad))
end
