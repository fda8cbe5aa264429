wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"body": {"message": "hello", "n": 42}}'
